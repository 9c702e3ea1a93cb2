"""The networks behind coordinate rules: which values they find, and that blocks do not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_strategies.networks import mean_of_middle, middle

VALUES = st.floats(allow_nan=False, width=32)


def found(network, values):
    """Return what a network finds, by running its steps on plain numbers."""
    slots = [*values, *[None] * network.buffers]
    for step in network.steps:
        slots[step.out] = (min if step.is_low else max)(slots[step.a], slots[step.b])
    assert slots[: len(values)] == list(values)  # the inputs stay as they are
    return sorted(slots[slot] for slot in network.found)


@pytest.mark.parametrize("count", range(1, 11))
def test_every_order_of_zeros_and_ones_is_cut_right(count):
    # the zero-one principle (Knuth, section 5.3.4, theorem Z): then every order of numbers is
    for cut in range((count + 1) // 2):
        network = middle(count, cut)
        for bits in itertools.product((0, 1), repeat=count):
            assert found(network, bits) == sorted(bits)[cut : count - cut]


@given(st.data(), st.sampled_from([13, 25, 50, 64, 100]))
def test_larger_networks_find_the_middle(data, count):
    cut = data.draw(st.integers(0, (count - 1) // 2))
    values = data.draw(st.lists(VALUES, min_size=count, max_size=count))
    assert found(middle(count, cut), values) == sorted(values)[cut : count - cut]


def test_what_nobody_asks_for_is_not_computed():
    assert len(middle(10, 0).steps) == 0  # a mean needs no order
    assert len(middle(2, 0).steps) == 0
    assert len(middle(10, 4).steps) <= 50  # a sort takes 64
    assert len(middle(50, 24).steps) <= 612  # a sort takes 806


def test_nothing_left_is_refused():
    with pytest.raises(ValueError, match="cannot leave out"):
        middle(4, 2)


def test_whole_and_block_by_block_have_the_same_bits_zeros_of_both_signs_included():
    rng = np.random.default_rng(0)
    rows = rng.choice(np.array([-1, -0.0, 0.0, 1], np.float32), size=(10, 40_000))
    for cut in (2, 4):
        whole = mean_of_middle(list(rows), cut, out=np.empty(40_000, np.float32))
        for edges in ([0, 1, 17, 4096, 40_000], [0, 16_384, 16_385, 40_000]):
            parts = [
                mean_of_middle(
                    [row[a:b].copy() for row in rows], cut, out=np.empty(b - a, np.float32)
                )
                for a, b in itertools.pairwise(edges)
            ]
            assert np.concatenate(parts).tobytes() == whole.tobytes()
        assert not np.signbit(whole[whole == 0]).any()
