"""Encoded updates: small errors, one form only, hostile ones refused, and a bound that is exact."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from larrey_protocol.encodings import (
    BLOCK,
    ITEM_BYTES,
    Encoding,
    blocks_of,
    decode,
    encode,
    norm_growth,
    require_canonical,
    worst_error,
)
from larrey_protocol.envelope import check_update
from larrey_protocol.errors import Refusal
from larrey_protocol.models import model_layout, phase_layout
from larrey_protocol.norms import norm_bound
from larrey_protocol.study import Training
from larrey_protocol.tensors import TensorLayout, pack, parse_header
from tests.protocol.samples import study

SMALL: list[Encoding] = ["float16", "int8"]
each = pytest.mark.parametrize("encoding", SMALL)
vectors = st.tuples(
    st.sampled_from([1, 7, BLOCK - 1, BLOCK, BLOCK + 3, 3 * BLOCK]),
    st.integers(0, 2**32 - 1),
    st.floats(-90, 110),
).map(lambda of: _vector(*of))
short = arrays.arrays(
    np.float32, st.integers(1, 40), elements=st.floats(-(2.0**100), 2.0**100, width=32)
)


def _vector(size: int, seed: int, exponent: float) -> np.ndarray:
    """Return values of all magnitudes around a power of two, some of them zero."""
    random = np.random.default_rng(seed)
    values = random.normal(size=size) * 2.0 ** (exponent - random.integers(0, 12, size))
    return np.where(random.random(size) < 0.1, 0, values).astype(np.float32)


def decoded(encoding: Encoding, values: np.ndarray) -> np.ndarray:
    return decode(*encode(encoding, values), np.empty(values.size, np.float32))


def largest_of(values: np.ndarray) -> np.ndarray:
    """Return for each value the largest absolute value of its block."""
    peaks = [np.abs(values[i : i + BLOCK]).max() for i in range(0, values.size, BLOCK)]
    return np.repeat(np.array(peaks, np.float64), BLOCK)[: values.size]


@each
@given(values=st.one_of(vectors, short))
def test_no_value_is_further_off_than_the_share_that_is_stated(
    encoding: Encoding, values: np.ndarray
) -> None:
    off = np.abs(decoded(encoding, values).astype(np.float64) - values)
    assert (off <= worst_error(encoding) * largest_of(values) + 2.0**-100).all()


@each
@given(values=st.one_of(vectors, short))
def test_what_was_decoded_is_encoded_to_the_same_bytes(
    encoding: Encoding, values: np.ndarray
) -> None:
    scales, codes = encode(encoding, values)
    require_canonical(scales, codes)
    again = encode(encoding, decode(scales, codes, np.empty(values.size, np.float32)))
    assert again[0].tobytes() == scales.tobytes()
    assert again[1].tobytes() == codes.tobytes()


@each
@given(values=vectors)
def test_every_decoded_value_is_exactly_code_times_scale(
    encoding: Encoding, values: np.ndarray
) -> None:
    scales, codes = encode(encoding, values)
    exact = codes.astype(np.float64) * np.repeat(scales.astype(np.float64), BLOCK)[: values.size]
    assert np.array_equal(decode(scales, codes, np.empty(values.size, np.float32)), exact)


@each
@given(values=vectors)
def test_the_norm_grows_by_no_more_than_the_bound_allows_for(
    encoding: Encoding, values: np.ndarray
) -> None:
    before = np.linalg.norm(values.astype(np.float64))
    after = np.linalg.norm(decoded(encoding, values).astype(np.float64))
    assert after <= norm_growth(encoding) * before


def test_a_largest_value_that_is_rounded_up_to_the_next_power_of_two_has_its_form() -> None:
    values = np.array([np.nextafter(np.float32(2), np.float32(0)), 0.75], np.float32)
    scales, codes = encode("float16", values)
    require_canonical(scales, codes)
    assert (scales.tolist(), codes.tolist()) == ([2.0], [1.0, 0.375])


def test_the_norm_bound_leaves_int8_exactly_the_room_that_it_can_need() -> None:
    worst = np.full(BLOCK, 1.5001, np.float32)  # each is rounded up to 2
    worst[0] = 127
    growth = np.linalg.norm(decoded("int8", worst)) / np.linalg.norm(worst)
    assert 0.9999 * norm_growth("int8") < growth <= norm_growth("int8")
    plain, small = study(), study(training__encoding="int8")
    bounds = [norm_bound(one, "alpha") for one in (plain, small)]
    assert bounds[1] == pytest.approx(bounds[0] * norm_growth("int8"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@each
def test_values_that_are_not_finite_make_an_update_that_nobody_takes(
    encoding: Encoding, bad: float
) -> None:
    values = np.ones(BLOCK + 1, np.float32)
    values[-1] = bad
    with pytest.raises(Refusal, match="update-not-finite"):
        require_canonical(*encode(encoding, values))


@pytest.mark.parametrize(
    ("encoding", "scale", "code", "refusal"),
    [
        ("int8", np.nan, 127, "update-not-finite"),
        ("int8", np.inf, 127, "update-not-finite"),
        ("float16", -np.inf, 1, "update-not-finite"),
        ("float16", 1, np.inf, "update-not-finite"),
        ("float16", 1, np.nan, "update-not-finite"),
        ("int8", -1, 127, "update-malformed"),
        ("float16", -1, 1, "update-malformed"),
        ("int8", 2.0**121, 127, "update-malformed"),
        ("float16", 2.0**121, 1, "update-malformed"),
        ("int8", 2.0**-120, 127, "update-malformed"),
        ("float16", 2.0**-101, 1, "update-malformed"),
        ("int8", 1, -128, "update-malformed"),
        ("int8", 1, 126, "update-malformed"),
        ("int8", 1 + 2.0**-20, 127, "update-malformed"),
        ("float16", 3, 1, "update-malformed"),
        ("float16", 1, 2, "update-malformed"),
        ("float16", 1, 0.5, "update-malformed"),
        ("int8", 0, 1, "update-malformed"),
        ("float16", 0, 1, "update-malformed"),
        ("int8", 1, 0, "update-malformed"),
        ("int8", -0.0, 0, "update-malformed"),
    ],
)
def test_a_block_that_no_encoder_makes_is_refused(
    encoding: Encoding, scale: float, code: float, refusal: str
) -> None:
    scales, codes = encode(encoding, np.full(2 * BLOCK + 5, 127, np.float32))
    for block in (0, 2):  # a whole one, and the short one at the end
        one, many = scales.copy(), codes.copy()
        one[block] = scale
        many[block * BLOCK : (block + 1) * BLOCK] = 0
        many[block * BLOCK] = code
        with pytest.raises(Refusal, match=refusal):
            require_canonical(one, many)


def test_a_scale_beyond_float32_is_refused_and_not_wrapped() -> None:
    huge = np.full(3, np.finfo(np.float32).max, np.float32)
    for encoding in SMALL:
        with pytest.raises(Refusal, match=r"update-(malformed|not-finite)"):
            require_canonical(*encode(encoding, huge))


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


def layout_of(encoding: Encoding, size: int = 100 * BLOCK + 9) -> TensorLayout:
    return TensorLayout((("0.weight", (1, size - 1)), ("0.bias", (1,))), encoding)


@each
def test_an_encoded_file_is_small_readable_by_others_and_checked_by_its_values(
    encoding: Encoding, opened: Callable[[bytes], int]
) -> None:
    layout = layout_of(encoding)
    values = _vector(layout.size, 1, 0.0)
    data = pack(layout, values)
    item = ITEM_BYTES[encoding]
    assert (
        len(data)
        == layout.nbytes
        == (len(layout.header) + 4 * blocks_of(layout.size) + item * layout.size)
    )
    assert parse_header(data, file_bytes=len(data)) == layout
    tensors = safetensors.numpy.load(data)
    assert {name: tensor.dtype.itemsize for name, tensor in tensors.items()} == {
        "scales": 4, "0.weight": item, "0.bias": item,
    }  # fmt: skip
    norm = float(np.linalg.norm(decoded(encoding, values).astype(np.float64)))
    assert check_update(opened(data), layout, norm_bound=1e9).norm == pytest.approx(norm, 1e-5)
    with pytest.raises(Refusal, match="update-over-norm"):
        check_update(opened(data), layout, norm_bound=0.99 * norm)


@each
def test_a_bad_scale_is_found_in_every_block_of_a_file(
    encoding: Encoding, opened: Callable[[bytes], int]
) -> None:
    layout = layout_of(encoding)
    data = pack(layout, _vector(layout.size, 2, 0.0))
    for block in (0, 63, 64, blocks_of(layout.size) - 1):
        place = len(layout.header) + 4 * block
        changed = data[:place] + np.float32(np.nan).tobytes() + data[place + 4 :]
        with pytest.raises(Refusal, match="update-not-finite"):
            check_update(opened(changed), layout, norm_bound=1e9)


@pytest.mark.parametrize("sent", ["float32", *SMALL])
@pytest.mark.parametrize("agreed", ["float32", *SMALL])
def test_another_encoding_than_the_study_s_is_refused(
    sent: Encoding, agreed: Encoding, opened: Callable[[bytes], int]
) -> None:
    """A smaller form is too many tensors or too few bytes; a larger one too many bytes."""
    data = pack(layout_of(sent, 50), np.ones(50, np.float32))
    file = opened(data)
    if sent == agreed:
        assert check_update(file, layout_of(agreed, 50), norm_bound=100).file_bytes == len(data)
        return
    larger = len(data) > layout_of(agreed, 50).nbytes
    code = "update-too-large" if larger else "update-wrong-tensors"
    with pytest.raises(Refusal, match=code):
        check_update(file, layout_of(agreed, 50), norm_bound=100)


def test_a_study_names_exactly_the_encodings_that_there_are() -> None:
    assert Training.model_fields["encoding"].annotation == Encoding
    assert set(get_args(Encoding)) == set(ITEM_BYTES)


def test_updates_are_encoded_as_the_study_says_and_models_never() -> None:
    small = study(training__encoding="int8")
    assert phase_layout(small, "train").encoding == "int8"
    assert model_layout(small).encoding == "float32"
    assert phase_layout(small, "train").entries == model_layout(small).entries
