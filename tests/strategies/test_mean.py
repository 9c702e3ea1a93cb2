from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_strategies.mean import weighted_mean


def mean(blocks, weights):
    return weighted_mean(
        blocks, weights, out=np.empty_like(blocks[0]), scratch=np.empty_like(blocks[0])
    )


def blocks_of(count: int, size: int = 257, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32))


@given(
    weights=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
def test_mean_agrees_with_numpy_in_double(weights, seed):
    blocks = blocks_of(len(weights), 64, seed)
    expected = np.average(np.array(blocks, np.float64), axis=0, weights=weights)
    assert np.allclose(mean(blocks, weights), expected, atol=2e-6)  # 12 float32 roundings


@given(order=st.permutations(range(6)))
def test_order_of_arrival_does_not_reach_the_bits_in_roster_order(order):
    blocks, weights = blocks_of(6), [3.0, 1.0, 7.0, 2.0, 2.0, 0.5]
    arrived = {i: (blocks[i], weights[i]) for i in order}
    roster = [arrived[i] for i in range(6)]
    there = mean([b for b, _ in roster], [w for _, w in roster])
    assert there.tobytes() == mean(blocks, weights).tobytes()


def test_one_site_is_its_own_mean_to_the_bit():
    (block,) = blocks_of(1)
    assert mean([block], [17.0]).tobytes() == block.tobytes()


def test_weights_of_those_who_came_are_renormalised():
    blocks = blocks_of(3)
    assert np.allclose(mean(blocks[:2], [0.2, 0.2]), (blocks[0] + blocks[1]) / 2, atol=1e-6)


def test_whole_and_block_by_block_have_the_same_bits():
    blocks, weights = blocks_of(4), [1.0, 2.0, 3.0, 4.0]
    parts = [mean([b[a : a + 100] for b in blocks], weights) for a in (0, 100, 200)]
    assert np.concatenate(parts).tobytes() == mean(blocks, weights).tobytes()


def test_mean_allocates_no_arrays():
    blocks = blocks_of(4, 100_000)
    out, scratch = np.empty_like(blocks[0]), np.empty_like(blocks[0])
    tracemalloc.start()
    weighted_mean(blocks, [1.0] * 4, out=out, scratch=scratch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000  # a tenth of one block


def test_blocks_are_left_untouched():
    blocks = blocks_of(3)
    before = [b.tobytes() for b in blocks]
    mean(blocks, [1.0, 2.0, 3.0])
    assert [b.tobytes() for b in blocks] == before


@pytest.mark.parametrize(
    "weights", [[], [1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, 1.0, 1.0]]
)
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        mean(blocks_of(2), weights)
