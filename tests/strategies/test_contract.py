"""What every strategy must do, whatever paper it comes from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_strategies.contract import Strategy
from larrey_strategies.mean import weighted_mean
from larrey_strategies.registry import make_strategy

PARAMETERS = {"fedavg": {}, "fedprox": {"mu": 0.1}, "fedadam": {"eta": 0.05}}
NAMES = tuple(PARAMETERS)


@pytest.fixture(params=NAMES)
def strategy(request) -> Strategy:
    return make_strategy(request.param, PARAMETERS[request.param])


def vector(seed: int, size: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def rounds(strategy: Strategy, params: np.ndarray, seeds: list[int]) -> list[np.ndarray]:
    state, history = strategy.init(params), []
    for seed in seeds:
        params, state = strategy.step(params, state, vector(seed, params.size))
        history.append(params)
    return history


def mean(blocks, weights):
    return weighted_mean(
        blocks, weights, out=np.empty_like(blocks[0]), scratch=np.empty_like(blocks[0])
    )


@given(cuts=st.lists(st.integers(0, 1000), max_size=5), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", NAMES)
def test_step_block_by_block_gives_the_bits_of_the_whole(name, cuts, seed):
    strategy = make_strategy(name, PARAMETERS[name])
    params, updates = vector(seed), [vector(seed + 100 + i) for i in range(3)]
    edges = [0, *sorted(cuts), 1000]
    whole, state = params, strategy.init(params)
    blocks = [(params[a:b], strategy.init(params[a:b])) for a, b in pairwise(edges)]
    for update in updates:
        whole, state = strategy.step(whole, state, update)
        pieces = [update[a:b] for a, b in pairwise(edges)]
        blocks = [strategy.step(p, s, u) for (p, s), u in zip(blocks, pieces, strict=True)]
    assert np.concatenate([p for p, _ in blocks]).tobytes() == whole.tobytes()
    for key in state:
        assert np.concatenate([s[key] for _, s in blocks]).tobytes() == state[key].tobytes()


def test_step_keeps_shape_and_float32(strategy):
    params, state = strategy.step(vector(0), strategy.init(vector(0)), vector(1))
    arrays = [params, *state.values()]
    assert {(a.dtype, a.shape) for a in arrays} == {(np.dtype(np.float32), (1000,))}


def test_inputs_are_left_untouched(strategy):
    params, update = vector(0), vector(1)
    state = strategy.init(params)
    before = [a.copy() for a in (params, update, *state.values())]
    strategy.step(params, state, update)
    strategy.correction(params, update, {})
    for array, copy in zip((params, update, *state.values()), before, strict=True):
        assert array.tobytes() == copy.tobytes()


def test_state_written_and_read_back_continues_to_the_same_bits(strategy):
    params, state = strategy.step(vector(0), strategy.init(vector(0)), vector(1))
    read = {k: np.frombuffer(v.tobytes(), np.float32) for k, v in state.items()}
    there, _ = strategy.step(np.frombuffer(params.tobytes(), np.float32), read, vector(2))
    here, _ = strategy.step(params, state, vector(2))
    assert there.tobytes() == here.tobytes()


def test_zero_update_in_the_first_round_leaves_the_model(strategy):
    params = vector(0)
    after, _ = strategy.step(params, strategy.init(params), np.zeros_like(params))
    assert after.tobytes() == params.tobytes()


def test_empty_vector_passes(strategy):
    empty = np.empty(0, np.float32)
    assert strategy.step(empty, strategy.init(empty), empty)[0].shape == (0,)


def test_sites_find_the_minimum_of_their_mean_quadratic(strategy):
    centres = [vector(i, 50) for i in range(4)]
    best = np.mean(centres, axis=0)
    params = np.zeros(50, np.float32)
    state = strategy.init(params)
    for _ in range(600):
        updates = [local_descent(strategy, params, centre) for centre in centres]
        params, state = strategy.step(params, state, mean(updates, [1.0] * 4))
    assert np.max(np.abs(params - best)) < 0.02


def local_descent(strategy: Strategy, w_global, centre, steps: int = 2, lr: float = 0.1):
    w = w_global
    for _ in range(steps):
        gradient = w - centre
        extra = strategy.correction(w, w_global, {})
        w = w - np.float32(lr) * (gradient if extra is None else gradient + extra)
    return w - w_global


def test_correction_is_nothing_or_starts_at_zero(strategy):
    extra = strategy.correction(vector(0), vector(0), {})
    assert extra is None or not extra.any()


def test_equal_inputs_give_equal_runs(strategy):
    first, second = (rounds(strategy, vector(0), [1, 2, 3]) for _ in range(2))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]
