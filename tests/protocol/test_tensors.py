"""Tensor files: exact, deterministic, readable by safetensors, hostile ones refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.envelope import check_update
from larrey_protocol.errors import Refusal
from larrey_protocol.models import initial_parameters, model_layout, phase_layout
from larrey_protocol.norms import norm_bound
from larrey_protocol.tensors import TensorLayout, pack, parse_header
from tests.protocol.samples import study

LAYOUT = TensorLayout((("0.weight", (1, 4)), ("0.bias", (1,))))


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=5))
def test_a_packed_file_reads_back_with_safetensors_and_with_our_own_parser(
    shapes: list[list[int]],
) -> None:
    layout = TensorLayout(tuple((f"t{i}", tuple(shape)) for i, shape in enumerate(shapes)))
    flat = np.arange(layout.size, dtype=np.float32)
    data = pack(layout, flat)
    assert parse_header(data, file_bytes=len(data)) == layout
    loaded = safetensors.numpy.load(data)
    for (name, _), view in zip(layout.entries, layout.views(flat), strict=True):
        assert np.array_equal(loaded[name], view)


def header(table: object) -> bytes:
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        header([1, 2]),
        header({"a": 1}),
        header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + b"\x00" * 4,
        header({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}) + b"\x00" * 8,
        header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + b"\x00" * 4,
        header({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}) + b"\x00" * 4,
        header({"a": {"dtype": "F32", "shape": [2**39, 2**39], "data_offsets": [0, 4]}}),
        b"\x10\x27\x00\x00\x00\x00\x00\x00" + b"[" * 10_000,
    ],
)
def test_a_hostile_tensor_file_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal, match="update-malformed"):
        parse_header(data, file_bytes=len(data))


@given(st.integers(0, len(LAYOUT.header) - 1), st.integers(0, 255))
def test_any_changed_header_byte_is_noticed(position: int, value: int) -> None:
    data = bytearray(pack(LAYOUT, np.zeros(5, np.float32)))
    same = data[position] == value
    data[position] = value
    try:
        assert (parse_header(bytes(data), file_bytes=len(data)) == LAYOUT) == same
    except Refusal:
        assert not same


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    descriptors: list[int] = []

    def write(data: bytes) -> int:
        path = tmp_path / f"update-{len(descriptors)}"
        path.write_bytes(data)
        descriptors.append(os.open(path, os.O_RDONLY))
        return descriptors[-1]

    yield write
    for descriptor in descriptors:
        os.close(descriptor)


def test_an_honest_update_passes_with_its_norm(opened: Callable[[bytes], int]) -> None:
    data = pack(LAYOUT, np.array([3, 0, 4, 0, 0], np.float32))
    facts = check_update(opened(data), LAYOUT, norm_bound=5.0)
    assert facts.norm == 5.0
    assert facts.file_bytes == len(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (pack(LAYOUT, np.full(5, 100, np.float32)), "update-over-norm"),
        (pack(LAYOUT, np.full(5, np.float32(2e38))), "update-over-norm"),
        (pack(LAYOUT, np.array([0, 0, np.nan, 0, 0], np.float32)), "update-not-finite"),
        (pack(LAYOUT, np.array([0, 0, 0, 0, np.inf], np.float32)), "update-not-finite"),
        (pack(LAYOUT, np.zeros(5, np.float32)) + b"\x00", "update-too-large"),
        (pack(LAYOUT, np.zeros(5, np.float32))[:-4], "update-malformed"),
        (
            pack(TensorLayout((("0.weights", (4,)), ("0.bia", (1,)))), np.zeros(5, np.float32)),
            "update-wrong-tensors",
        ),
        (b"\x80\x04\x95", "update-malformed"),
    ],
)
def test_a_bad_update_is_refused_with_its_code(
    opened: Callable[[bytes], int], data: bytes, code: str
) -> None:
    with pytest.raises(Refusal, match=code):
        check_update(opened(data), LAYOUT, norm_bound=10.0)


def test_a_large_update_is_checked_across_blocks(opened: Callable[[bytes], int]) -> None:
    layout = TensorLayout((("t", (700_001,)),))
    flat = np.ones(layout.size, np.float32)
    facts = check_update(opened(pack(layout, flat)), layout, norm_bound=1e9)
    assert facts.norm == pytest.approx(700_001**0.5)
    flat[-1] = np.nan
    with pytest.raises(Refusal, match="update-not-finite"):
        check_update(opened(pack(layout, flat)), layout, norm_bound=1e9)


def test_initial_parameters_are_zero_for_one_layer_and_reproducible_for_more() -> None:
    assert not initial_parameters(study()).any()
    deep = study(model={"name": "mlp", "hidden": [8, 3]})
    first, again = initial_parameters(deep), initial_parameters(deep)
    assert np.array_equal(first, again)
    assert model_layout(deep).size == first.size == 4 * 8 + 8 + 8 * 3 + 3 + 3 + 1
    assert np.abs(first).max() <= (6 / 3) ** 0.5


def test_the_norm_bound_admits_honest_noise_and_is_not_loose() -> None:
    """Simulate the largest honest signal plus noise; 200 draws stay below, within a factor six."""
    wide = study(training__local_steps=3, training__momentum=0.9, training__rounds=1)
    bound, random = norm_bound(wide, "beta"), np.random.default_rng(1)
    largest = 0.0
    for _ in range(200):
        velocity, moved = np.zeros(5), np.zeros(5)
        for _ in range(3):
            signal = np.full(5, 0.5 * 300 / 5**0.5)
            velocity = 0.9 * velocity + (signal + random.normal(0, 4.0 * 0.5, 5)) / 300
            moved -= velocity
        largest = max(largest, float(np.linalg.norm(moved)))
    assert largest < bound < 6 * largest


def test_the_norm_bound_without_privacy_is_the_declared_one() -> None:
    plain = study(privacy={"mechanism": "none", "max_update_norm": 7.0})
    assert norm_bound(plain, "alpha") == 7.0


def test_a_later_phase_answers_one_number_a_metric() -> None:
    plain = study(
        privacy={"mechanism": "none", "max_update_norm": 7.0},
        training__app="standard",
        training__calls=["train", "evaluate"],
        training__metrics=["loss", "accuracy"],
    )
    assert phase_layout(plain, "train") == model_layout(plain)
    assert phase_layout(plain, "evaluate").entries == (("loss", (1,)), ("accuracy", (1,)))
    assert norm_bound(plain, "alpha", "evaluate") == 7.0


def test_no_bound_is_made_up_for_a_phase_that_no_noise_covers() -> None:
    with pytest.raises(ValueError, match="evaluate"):
        norm_bound(study(), "alpha", "evaluate")
