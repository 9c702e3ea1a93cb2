"""Median and trimmed mean against numpy's, and what their papers promise."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from larrey_strategies.median import Median
from larrey_strategies.trimmed_mean import TrimmedMean

COUNTS = [1, 2, 3, 4, 5, 9, 10, 50, 64]
# few different values, so that ties are the rule
TABLES = st.sampled_from(COUNTS).flatmap(
    lambda n: arrays(np.float32, (n, 7), elements=st.integers(-3, 3).map(np.float32))
)


def combine(rule, rows):
    blocks = [np.ascontiguousarray(row) for row in rows]
    size = blocks[0].size
    out, scratch = np.empty(size, np.float32), np.empty(size, np.float32)
    return rule.combine(blocks, [1.0] * len(blocks), out=out, scratch=scratch)


def rows_of(count: int, size: int = 1000) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, size)).astype(np.float32)


@given(TABLES)
def test_the_median_is_numpy_s_bit_for_bit_with_ties(rows):
    assert np.array_equal(combine(Median(), rows), np.median(rows, axis=0))


@pytest.mark.parametrize("count", COUNTS)
def test_the_median_is_numpy_s_for_any_numbers(count):
    rows = rows_of(count)
    assert np.array_equal(combine(Median(), rows), np.median(rows, axis=0))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.2, 0.29, 0.49])
@pytest.mark.parametrize("count", COUNTS)
def test_the_trimmed_mean_is_that_of_the_sorted_middle(count, beta):
    rows = rows_of(count)
    cut = int(beta * count + 1e-9)
    middle = np.sort(rows.astype(np.float64), axis=0)[cut : count - cut]
    # float32 sums of 64 numbers of size about one
    assert np.allclose(combine(TrimmedMean(beta), rows), middle.mean(axis=0), atol=3e-6)


def test_a_share_that_float64_cannot_write_still_cuts_whole_sites():
    rows = rows_of(100, 50)
    middle = np.sort(rows.astype(np.float64), axis=0)[29:71]  # 0.29 * 100 is 28.999...
    assert np.allclose(combine(TrimmedMean(0.29), rows), middle.mean(axis=0), atol=3e-6)


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.2), TrimmedMean(0.4)])
@pytest.mark.parametrize("wild", [3e38, -3e38])
def test_one_wild_site_of_five_moves_no_coordinate_out_of_the_others_range(rule, wild):
    rows = rows_of(5)
    rows[3] = wild
    others = np.delete(rows, 3, axis=0)
    found = combine(rule, rows)
    assert (found >= others.min(axis=0) - 1e-6).all()
    assert (found <= others.max(axis=0) + 1e-6).all()


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.3)])
@pytest.mark.parametrize("count", [3, 10, 50])
def test_a_value_that_is_no_number_shows_in_its_coordinate_and_nowhere_else(rule, count):
    rows = rows_of(count, 40)
    rows[1, 7] = np.nan
    assert np.flatnonzero(np.isnan(combine(rule, rows))).tolist() == [7]


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.2)])
def test_updates_are_left_untouched(rule):
    rows = rows_of(10, 20_000)
    before = rows.tobytes()
    combine(rule, rows)
    assert rows.tobytes() == before


@pytest.mark.parametrize("count", [10, 50])
def test_memory_is_bounded_whatever_the_size_of_the_block(count):
    rows = [np.ones(1 << 20, np.float32)] * count  # the same memory again and again
    out = np.empty(1 << 20, np.float32)
    tracemalloc.start()
    Median().combine(rows, [1.0] * count, out=out, scratch=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20  # 2 MiB of buffers; one block alone has 4


@pytest.mark.parametrize("beta", [-0.1, 0.5, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(beta):
    with pytest.raises(ValueError, match="beta"):
        TrimmedMean(beta)
