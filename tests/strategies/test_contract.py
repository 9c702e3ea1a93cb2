"""What every algorithm must do, whatever paper it comes from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from larrey_strategies.contract import LocalRound, RoundFacts
from tests.strategies.algorithms import FACTS, ROBUST, aggregate, cut, every_algorithm, vector

EVERY = every_algorithm()
LINEAR = [n for n in EVERY if n not in ROBUST]


@pytest.fixture(params=EVERY)
def algorithm(request):
    return EVERY[request.param]


class Run:
    """An algorithm over some rounds, sites answering with given updates."""

    def __init__(self, algorithm, params, sites: int) -> None:
        self.algorithm, self.params = algorithm, params
        self.state = algorithm.init(params)
        self.site_states = [algorithm.site_init(params) for _ in range(sites)]

    def round(self, updates, weights=None) -> None:
        shared = {name: self.state[name] for name in self.algorithm.shared}
        for site, update in enumerate(updates):
            local = LocalRound(self.params, update, shared, FACTS)
            self.site_states[site] = self.algorithm.site_step(self.site_states[site], local)
        mean = aggregate(self.algorithm, updates, weights or [1.0] * len(updates))
        self.params, self.state = self.algorithm.step(self.params, self.state, mean, FACTS)

    @property
    def arrays(self) -> list[np.ndarray]:
        return [
            self.params,
            *self.state.values(),
            *(a for s in self.site_states for a in s.values()),
        ]

    @property
    def bits(self) -> list[bytes]:
        return [array.tobytes() for array in self.arrays]


def updates_of(round_: int, sites: int, size: int = 1000) -> list[np.ndarray]:
    return [vector(1000 * round_ + site, size) for site in range(sites)]


def run(algorithm, rounds: int, sites: int, size: int = 1000) -> Run:
    result = Run(algorithm, vector(7, size), sites)
    for number in range(rounds):
        result.round(updates_of(number, sites, size))
    return result


@settings(max_examples=10)
@given(order=st.permutations(range(7)))
@pytest.mark.parametrize("name", EVERY)
def test_order_of_arrival_changes_no_bit(name, order):
    arrived = {site: updates_of(0, 7)[site] for site in order}
    one, other = Run(EVERY[name], vector(7), 7), Run(EVERY[name], vector(7), 7)
    weights = [3.0, 1.0, 7.0, 2.0, 2.0, 0.5, 1.0]
    one.round([arrived[site] for site in range(7)], weights)
    other.round(updates_of(0, 7), weights)
    assert one.bits == other.bits


def test_shapes_and_dtypes_are_kept(algorithm):
    arrays = run(algorithm, 3, 5).arrays
    assert {(a.dtype, a.shape) for a in arrays} == {(np.dtype(np.float32), (1000,))}


def test_inputs_are_left_untouched(algorithm):
    before = run(algorithm, 2, 5)
    updates, bits = updates_of(2, 5), before.bits
    kept = list(before.arrays)
    shared = {name: before.state[name] for name in algorithm.shared}
    algorithm.correction(updates[0], before.params, before.site_states[0], shared)
    algorithm.begin(before.params, before.site_states[0])
    before.round(updates)
    assert [array.tobytes() for array in kept] == bits
    assert [u.tobytes() for u in updates] == [u.tobytes() for u in updates_of(2, 5)]


def test_a_restart_between_rounds_from_what_was_written_equals_no_restart(algorithm):
    through, before = run(algorithm, 4, 5), run(algorithm, 2, 5)
    after = Run(algorithm, read_back({"": before.params})[""], 5)
    after.state = read_back(before.state)
    after.site_states = [read_back(state) for state in before.site_states]
    for number in (2, 3):
        after.round(updates_of(number, 5))
    assert after.bits == through.bits


def read_back(state):
    """Return a state as its file gives it: sorted by name, read-only."""
    written = {name: state[name].tobytes() for name in sorted(state)}
    return {name: np.frombuffer(data, np.float32) for name, data in written.items()}


def test_zero_updates_leave_a_fresh_model(algorithm):
    fresh = Run(algorithm, vector(7), 5)
    fresh.round([np.zeros(1000, np.float32)] * 5)
    assert fresh.params.tobytes() == vector(7).tobytes()


def test_an_empty_model_passes(algorithm):
    empty = np.empty(0, np.float32)
    assert algorithm.step(empty, algorithm.init(empty), empty, FACTS)[0].shape == (0,)


@pytest.mark.parametrize("name", [n for n in EVERY if "krum" not in n])
def test_one_site_alone_is_a_federation(name):
    assert np.isfinite(run(EVERY[name], 3, 1).params).all()


def test_a_hundred_sites_are_a_federation(algorithm):
    assert np.isfinite(run(algorithm, 2, 100, 200).params).all()


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("size", [1e3, 1e15])
def test_one_wild_outlier_stays_bounded_by_the_robust(name, size):
    honest, wild = updates_of(0, 6), np.float32(size) * vector(9)
    moved = aggregate(EVERY[name], [*honest, wild], [1.0] * 7)
    assert np.linalg.norm(moved) <= 1.01 * max(np.linalg.norm(u) for u in honest)


@pytest.mark.parametrize("name", LINEAR)
def test_one_wild_outlier_moves_the_mean_as_far_as_it_likes(name):
    moved = aggregate(EVERY[name], [*updates_of(0, 6), np.float32(1e3) * vector(9)], [1.0] * 7)
    assert np.linalg.norm(moved) > 100 * np.linalg.norm(vector(0)) / 7


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, 1000), max_size=5))
@pytest.mark.parametrize("name", EVERY)
def test_step_block_by_block_gives_the_bits_of_the_whole(name, cuts):
    algorithm, edges = EVERY[name], [0, *sorted(cuts), 1000]
    whole, state = vector(7), algorithm.init(vector(7))
    blocks = [(piece, algorithm.init(piece)) for piece in cut(whole, edges)]
    for seed in range(3):
        whole, state = algorithm.step(whole, state, vector(seed), FACTS)
        pieces = zip(blocks, cut(vector(seed), edges), strict=True)
        blocks = [algorithm.step(p, s, u, FACTS) for (p, s), u in pieces]
    assert np.concatenate([p for p, _ in blocks]).tobytes() == whole.tobytes()
    for key in state:
        assert np.concatenate([s[key] for _, s in blocks]).tobytes() == state[key].tobytes()


def test_the_sites_half_block_by_block_gives_the_bits_of_the_whole(algorithm):
    after = run(algorithm, 2, 5)
    shared = {name: after.state[name] for name in algorithm.shared}
    state, w, edges = after.site_states[0], vector(3), [0, 1, 300, 1000]
    pieces = []
    for a, b in pairwise(edges):
        part = {k: v[a:b] for k, v in state.items()}, {k: v[a:b] for k, v in shared.items()}
        local = LocalRound(after.params[a:b], w[a:b], part[1], FACTS)
        extra = algorithm.correction(w[a:b], after.params[a:b], *part)
        begin = algorithm.begin(after.params[a:b], part[0])
        assert begin.tobytes() == algorithm.begin(after.params, state)[a:b].tobytes()
        pieces.append((extra, algorithm.site_step(part[0], local)))
    whole = algorithm.correction(w, after.params, state, shared)
    next_state = algorithm.site_step(state, LocalRound(after.params, w, shared, FACTS))
    if whole is not None:
        assert np.concatenate([extra for extra, _ in pieces]).tobytes() == whole.tobytes()
    for key in next_state:
        joined = np.concatenate([state[key] for _, state in pieces])
        assert joined.tobytes() == next_state[key].tobytes()


def test_what_travels_is_part_of_the_state_and_what_the_objective_needs_travels(algorithm):
    assert set(algorithm.shared) <= set(algorithm.init(vector(7)))
    assert set(algorithm.objective.needs) <= set(algorithm.shared)


def test_a_first_round_begins_at_the_global_model(algorithm):
    fresh = Run(algorithm, vector(7), 1)
    begin = algorithm.begin(fresh.params, fresh.site_states[0])
    assert begin.tobytes() == fresh.params.tobytes()


def test_a_first_correction_at_the_global_model_is_nothing(algorithm):
    fresh = Run(algorithm, vector(7), 1)
    shared = {name: fresh.state[name] for name in algorithm.shared}
    extra = algorithm.correction(fresh.params, fresh.params, fresh.site_states[0], shared)
    assert extra is None or not extra.any()


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_plain_steps_are_the_sum_of_the_weights_that_momentum_gives_each_gradient(steps, rho):
    velocity = moved = 0.0
    for _ in range(steps):
        velocity = rho * velocity + 1.0
        moved += velocity
    assert RoundFacts(steps, 0.1, rho).plain_steps == pytest.approx(moved)
