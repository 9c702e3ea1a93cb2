"""Krum, geometric median, centred clipping and norm bounding against their papers, written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.errors import UsageError
from larrey_strategies.centered_clipping import CenteredClipping
from larrey_strategies.combining import aggregate
from larrey_strategies.geometric_median import GeometricMedian
from larrey_strategies.gram import PIECE, add_gram, distances, distances_to
from larrey_strategies.krum import Krum, MultiKrum
from larrey_strategies.norm_bounding import NormBounding

ROBUST = [Krum(1), MultiKrum(1, 3), GeometricMedian(), CenteredClipping(3.0), NormBounding(3.0)]


def updates_of(count: int, size: int = 60, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32))


def gram_of(updates) -> np.ndarray:
    gram = np.zeros((len(updates), len(updates)))
    add_gram(gram, updates)
    return gram


def explicit_krum(updates, f, m):
    rows = np.array(updates, np.float64)
    near = max(1, len(rows) - f - 2)
    scores = []
    for i, row in enumerate(rows):
        squared = sorted(((row - o) ** 2).sum() for j, o in enumerate(rows) if j != i)
        scores.append(sum(squared[:near]))
    return rows[sorted(range(len(rows)), key=scores.__getitem__)[:m]].mean(axis=0)


def explicit_weiszfeld(updates, weights, nu, iterations):
    rows, alpha = np.array(updates, np.float64), np.array(weights) / sum(weights)
    v = alpha @ rows
    for _ in range(iterations):
        beta = alpha / np.maximum(nu, np.linalg.norm(v - rows, axis=1))
        v = beta @ rows / beta.sum()
    return v


def explicit_clipping(updates, tau, iterations):
    rows = np.array(updates, np.float64)
    v = np.zeros(rows.shape[1])
    for _ in range(iterations):
        away = rows - v
        norms = np.linalg.norm(away, axis=1, keepdims=True)
        v = v + (away * np.minimum(1, tau / np.maximum(norms, 1e-300))).mean(axis=0)
    return v


@given(count=st.integers(5, 20), f=st.integers(0, 1), m=st.integers(1, 6), seed=st.integers(0, 99))
def test_krum_chooses_as_written_out(count, f, m, seed):
    updates = updates_of(count, seed=seed)
    found = aggregate(MultiKrum(f, m), updates, [1.0] * count)
    assert np.allclose(found, explicit_krum(updates, f, m), atol=1e-6)


@pytest.mark.parametrize("count", [50, 64])
def test_krum_chooses_one_of_many_as_written_out_and_copies_its_bits(count):
    updates = updates_of(count)
    found = aggregate(Krum(10), updates, [1.0] * count)
    assert np.allclose(found, explicit_krum(updates, 10, 1))
    assert any(found.tobytes() == update.tobytes() for update in updates)


def test_krum_takes_the_first_in_the_roster_of_equals():
    updates = [np.full(9, value, np.float32) for value in (1, 0, 0, 1, 1, 0)]
    gram = gram_of(updates)
    assert Krum(0).coefficients(gram, [1.0] * 6).tolist() == [1, 0, 0, 0, 0, 0]
    assert MultiKrum(0, 2).coefficients(gram, [1.0] * 6).tolist() == [0.5, 0.5, 0, 0, 0, 0]


@pytest.mark.parametrize("size", [100, 10_000, 300_000])
def test_distances_are_right_to_a_small_part_of_the_norms(size):
    start, *steps = np.random.default_rng(size).normal(size=(6, size)).astype(np.float32)
    updates = [start + np.float32(0.01 * k) * step for k, step in enumerate(steps)]
    rows = np.array(updates, np.float64)
    expected = np.linalg.norm(rows[:, None] - rows[None, :], axis=2)
    error = np.abs(distances(gram_of(updates)) - expected).max()
    assert error < 4e-4 * np.linalg.norm(start)


def test_krum_tells_updates_apart_that_differ_by_a_hundredth():
    start, *steps = updates_of(6, 10_000)
    shares = (0.3, 0.01, 0.02, 0.1, 0.2)
    updates = [start + np.float32(k) * step for k, step in zip(shares, steps, strict=True)]
    assert aggregate(Krum(1), updates, [1.0] * 5).tobytes() == updates[1].tobytes()


@pytest.mark.parametrize("rule", [Krum(1), MultiKrum(1, 2)])
def test_krum_without_the_contributors_that_its_bound_needs_is_refused(rule):
    assert rule.fewest == 5
    with pytest.raises(UsageError, match="needs 5 updates, found 4"):
        aggregate(rule, updates_of(4), [1.0] * 4)


@pytest.mark.parametrize("count", [1, 2])
def test_krum_against_nobody_works_with_one_or_two_sites(count):
    updates = updates_of(count)
    assert aggregate(Krum(0), updates, [1.0] * count).tobytes() == updates[0].tobytes()


@given(weights=st.lists(st.floats(0.1, 9), min_size=2, max_size=9), seed=st.integers(0, 99))
def test_the_geometric_median_is_weiszfeld_s_written_out(weights, seed):
    updates = updates_of(len(weights), seed=seed)
    found = aggregate(GeometricMedian(iterations=7), updates, weights)
    assert np.allclose(found, explicit_weiszfeld(updates, weights, 1e-6, 7), atol=2e-6)


@pytest.mark.parametrize("count", [3, 50, 64])
def test_the_geometric_median_has_the_least_sum_of_distances(count):
    updates = updates_of(count)
    found = aggregate(GeometricMedian(), updates, [1.0] * count).astype(np.float64)

    def total(point):
        return np.linalg.norm(np.array(updates) - point, axis=1).sum()

    for direction in updates_of(20, seed=1):
        assert total(found + 0.01 * direction) >= total(found)


def test_the_geometric_median_stays_at_the_place_of_a_majority():
    updates = [*[np.ones(60, np.float32)] * 3, *updates_of(2)]
    assert np.allclose(aggregate(GeometricMedian(), updates, [1.0] * 5), 1, atol=1e-5)


@given(
    count=st.integers(1, 12),
    tau=st.floats(0.5, 20),
    iterations=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_centred_clipping_is_the_paper_s_written_out(count, tau, iterations, seed):
    updates = updates_of(count, seed=seed)
    found = aggregate(CenteredClipping(tau, iterations), updates, [1.0] * count)
    assert np.allclose(found, explicit_clipping(updates, tau, iterations), atol=3e-6)


def test_centred_clipping_with_a_wide_radius_is_the_mean():
    updates = updates_of(7)
    found = aggregate(CenteredClipping(1e6), updates, [1.0] * 7)
    assert np.allclose(found, np.mean(updates, axis=0), atol=1e-6)


@given(
    weights=st.lists(st.floats(0.1, 9), min_size=1, max_size=9),
    bound=st.floats(0.1, 20),
    seed=st.integers(0, 99),
)
def test_norm_bounding_is_the_mean_of_what_it_scaled_down(weights, bound, seed):
    updates = updates_of(len(weights), seed=seed)
    scaled = [u.astype(np.float64) * min(1, bound / np.linalg.norm(u)) for u in updates]
    found = aggregate(NormBounding(bound), updates, weights)
    assert np.allclose(found, np.average(scaled, axis=0, weights=weights), atol=2e-6)
    assert np.linalg.norm(found.astype(np.float64)) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("wild", [1e6, -1e30, 1e38])
def test_one_wild_site_of_seven_moves_the_aggregate_by_little(rule, wild):
    updates = updates_of(7)  # norms of about 8
    calm = aggregate(rule, updates, [1.0] * 7)
    updates[2] = np.full(60, wild, np.float32)
    found = aggregate(rule, updates, [1.0] * 7)
    assert np.linalg.norm(found.astype(np.float64) - calm) < 16


@pytest.mark.parametrize("rule", ROBUST[2:])
@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_updates_of_zeros_give_zeros(rule, count):
    zeros = [np.zeros(60, np.float32)] * count
    assert not aggregate(rule, zeros, [1.0] * count).any()


def test_distances_to_a_combination_are_those_of_the_vectors():
    updates, factors = updates_of(5), np.array([0.1, 0.4, 0.0, 0.2, 0.3])
    centre = factors @ np.array(updates, np.float64)
    expected = np.linalg.norm(np.array(updates) - centre, axis=1)
    assert np.allclose(distances_to(gram_of(updates), factors), expected)


def test_the_matrix_has_the_same_bits_however_much_is_at_hand_at_once():
    updates = updates_of(6, 5 * PIECE + 77)
    gram = np.zeros((6, 6))
    for start, end in ((0, 2 * PIECE), (2 * PIECE, 3 * PIECE), (3 * PIECE, None)):
        add_gram(gram, [update[start:end] for update in updates])
    assert gram.tobytes() == gram_of(updates).tobytes()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Krum, (-1,)),
        (Krum, (1.5,)),
        (MultiKrum, (1, 0)),
        (GeometricMedian, (0.0,)),
        (GeometricMedian, (1e-6, 0)),
        (CenteredClipping, (0.0,)),
        (CenteredClipping, (float("inf"),)),
        (CenteredClipping, (1.0, 2.5)),
        (NormBounding, (-1.0,)),
        (NormBounding, (float("nan"),)),
    ],
)
def test_values_out_of_range_are_refused(kind, values):
    with pytest.raises(ValueError, match="must be"):
        kind(*values)


def test_whole_numbers_may_be_written_with_a_point():
    updates = updates_of(7)
    expected = aggregate(MultiKrum(1, 2), updates, [1.0] * 7)
    assert aggregate(MultiKrum(1.0, 2.0), updates, [1.0] * 7).tobytes() == expected.tobytes()
