"""Metrics leave under the small-cell rule, snapshots as commitments, answers at padded times."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.derived import snapshot_commitment, under_small_cell_rule
from larrey_client.frames import is_sealed, memory_file, seal
from larrey_client.padding import release_at
from larrey_protocol.errors import Refusal
from larrey_protocol.tensors import TensorLayout, pack

LAYOUT = TensorLayout(entries=(("auc", (1,)), ("count", (1,))))


def told(values: list[float], threshold: int = 11) -> list[float]:
    data = pack(LAYOUT, np.array(values, np.float32))
    file = seal(memory_file("metrics", [data]))
    try:
        with under_small_cell_rule(file, LAYOUT, threshold) as leaving:
            assert is_sealed(leaving)
            found = os.pread(leaving, LAYOUT.nbytes, 0)
    finally:
        os.close(file)
    assert found[: len(LAYOUT.header)] == LAYOUT.header
    return np.frombuffer(found, "<f4", offset=len(LAYOUT.header)).astype(float).tolist()


def test_shares_lose_digits_and_counts_are_rounded() -> None:
    assert told([0.73129, 23.0]) == pytest.approx([0.731, 25.0])
    assert told([1.0, 0.0]) == pytest.approx([0.999, 0.0])


@pytest.mark.parametrize(("count", "threshold"), [(1.5, 11), (10.0, 11), (14.0, 15)])
def test_a_small_count_refuses_the_whole_answer(count: float, threshold: int) -> None:
    with pytest.raises(Refusal) as refusal:
        told([0.5, count], threshold)
    assert refusal.value.code == "small-cell"


def test_two_studies_on_the_same_rows_cannot_be_linked() -> None:
    one, other = (snapshot_commitment(b"s" * 32, study, "sha256:rows") for study in ("a", "b"))
    assert one != other
    assert one == snapshot_commitment(b"s" * 32, "a", "sha256:rows")
    assert one != snapshot_commitment(b"t" * 32, "a", "sha256:rows")
    assert one != snapshot_commitment(b"s" * 32, "a", "sha256:other")
    assert snapshot_commitment(b"s" * 32, "a", "") == ""


@pytest.mark.parametrize(
    ("now", "bucket", "expected"),
    [
        (101.0, 5.0, 105.0),
        (104.9, 5.0, 105.0),
        (105.1, 5.0, 110.0),
        (158.0, 5.0, 158.0),  # ready after the last multiple that the deadline leaves
        (101.0, 0.0, 101.0),
        (101.0, 600.0, 154.0),  # a tenth of the time is kept for sending
    ],
)
def test_an_answer_waits_for_a_multiple_of_the_bucket(
    now: float, bucket: float, expected: float
) -> None:
    assert release_at(now, arrived=100.0, deadline=160.0, bucket=bucket) == expected


@given(st.floats(0, 50), st.floats(0.1, 20), st.floats(1, 50))
def test_padding_makes_nobody_late_who_was_in_time(
    took: float, bucket: float, allowed: float
) -> None:
    now, deadline = 100 + took, 100 + allowed
    at = release_at(now, arrived=100.0, deadline=deadline, bucket=bucket)
    assert now <= at <= now + bucket + 1e-9
    assert at == now or at < deadline or now >= deadline


@given(st.floats(0.01, 4.99), st.floats(0.01, 4.99))
def test_two_trainings_within_one_bucket_end_at_one_time(one: float, other: float) -> None:
    ends = {
        release_at(100 + took, arrived=100.0, deadline=200.0, bucket=5.0) for took in (one, other)
    }
    assert ends == {105.0}
