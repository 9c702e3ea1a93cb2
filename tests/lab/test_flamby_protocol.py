"""A round is FLamby's: torch's start, its mini-batches, and its averaging, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from larrey_lab.flamby import protocol
from larrey_lab.flamby.benchmarks import heart
from larrey_lab.flamby.measure import reproduced, trained
from larrey_lab.flamby.protocol import LOCAL_STEPS, Setting, batches, start_of, train
from larrey_lab.flamby.published import HEART, SEEDS
from larrey_lab.flamby.tasks import Binary
from larrey_strategies.registry import AlgorithmWords
from tests.lab.flamby_help import binary_sites

AVERAGING = Setting(AlgorithmWords("fedavg", {}), 0.1, 4)


def test_the_start_is_that_of_a_torch_layer_after_its_seed():
    torch.manual_seed(43)
    layer = torch.nn.Linear(13, 1)
    weights = torch.cat([layer.weight[0], layer.bias]).detach().numpy()
    assert (start_of(43, 13) == weights).all()


@given(rows=st.integers(1, 30), size=st.integers(1, 9), steps=st.integers(1, 40))
def test_every_row_is_used_once_before_any_is_used_again(rows, size, steps):
    index = np.arange(100, 100 + rows)
    drawn = batches(index, size=size, steps=steps, random=np.random.default_rng(0))
    assert drawn.shape == (steps, size)
    assert (drawn[:, 0] >= 0).all()  # no batch is empty
    count = -(-rows // size)
    for first in range(0, steps - count + 1, count):
        epoch = drawn[first : first + count].ravel()
        assert sorted(epoch[epoch >= 0]) == list(index)


def by_torch(parts, streams, start, *, rounds):
    """Federated averaging with torch's own layer, loss and optimizer."""
    current = torch.tensor(start)
    total = sum(len(part) for part in parts)
    for index in range(rounds):
        moved = torch.zeros_like(current)
        for part, stream in zip(parts, streams, strict=True):
            layer = torch.nn.Linear(part.x.shape[1], 1)
            with torch.no_grad():
                layer.weight[:], layer.bias[:] = current[:-1], current[-1]
            sgd = torch.optim.SGD(layer.parameters(), 0.1)
            for rows in stream[index * LOCAL_STEPS : (index + 1) * LOCAL_STEPS]:
                kept = rows[rows >= 0]
                sgd.zero_grad()
                loss = torch.nn.functional.binary_cross_entropy(
                    torch.sigmoid(layer(torch.tensor(part.x[kept]))), torch.tensor(part.y[kept])
                )
                loss.backward()
                sgd.step()
            local = torch.cat([layer.weight[0], layer.bias]).detach()
            moved += (local - current) * len(part) / total
        current = current + moved
    return current.numpy()


class TwoRounds(Binary):
    rounds = 2


@pytest.fixture(scope="module")
def small():
    parts = [site.train for site in binary_sites()]
    starts = np.stack([start_of(seed, 3) for seed in (1, 2)])
    streams = [
        np.stack(
            [
                batches(np.arange(len(part)), size=4, steps=200, random=np.random.default_rng(s))
                for s in (1, 2)
            ]
        )
        for part in parts
    ]
    return parts, streams, starts


def test_federated_averaging_is_that_of_torch(small):
    parts, streams, starts = small
    ours = train(TwoRounds(), AVERAGING, parts, streams, starts)
    theirs = by_torch(parts, [stream[0] for stream in streams], starts[0], rounds=2)
    assert ours[0] == pytest.approx(theirs, abs=2e-5)


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "fedadam", "fedyogi"])
def test_replications_side_by_side_are_those_alone(small, name):
    parts, streams, starts = small
    needed = {"fedprox": {"mu": 0.1}, "fedadam": {"eta": 0.1}, "fedyogi": {"eta": 0.1}}
    setting = Setting(AlgorithmWords(name, needed.get(name, {})), 0.1, 4, momentum=0.5)
    both = train(TwoRounds(), setting, parts, streams, starts)
    for i in range(2):
        alone = [stream[i : i + 1] for stream in streams]
        assert train(TwoRounds(), setting, parts, alone, starts[i : i + 1])[0] == pytest.approx(
            both[i], abs=1e-6
        )


def test_a_rule_over_whole_updates_is_refused(small):
    setting = Setting(AlgorithmWords("geometric-median", {}), 0.1, 4)
    with pytest.raises(TypeError, match="side by side"):
        train(TwoRounds(), setting, *small)


def test_inputs_are_left_as_they_were(small):
    parts, streams, starts = small
    before = starts.copy()
    train(TwoRounds(), AVERAGING, parts, streams, starts)
    assert (starts == before).all()


@pytest.fixture(scope="module")
def benchmark():
    return heart()


@pytest.mark.parametrize("row", HEART, ids=lambda row: row.method)
def test_a_published_row_of_heart_is_reproduced_within_seed_noise(benchmark, row):
    ours = reproduced(benchmark, row, SEEDS)
    assert abs(ours.gap) <= 2 * ours.noise
    assert abs(ours.gap) <= 0.01  # the starts are the published ones, only the batches differ
    assert ours.pooled == pytest.approx(row.pooled, abs=0.01)


def test_the_same_seeds_give_the_same_models(benchmark):
    first, second = (
        trained(benchmark.task, benchmark.sites, HEART[3].setting, SEEDS[:2]) for _ in range(2)
    )
    assert (first == second).all()
    assert protocol.LOCAL_STEPS == 100
