"""The two questions: are the published rows reproduced, and how good is Larrey's best setting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from larrey_lab.flamby.benchmarks import Benchmark
from larrey_lab.flamby.candidates import Candidate
from larrey_lab.flamby.central import central, chosen_penalty
from larrey_lab.flamby.data import Site
from larrey_lab.flamby.folds import Fold, streams_of, validated
from larrey_lab.flamby.protocol import Setting, scores, start_of, train
from larrey_lab.flamby.published import Row
from larrey_lab.flamby.tasks import Array, Task

__all__ = ["Best", "Reproduced", "best", "central_model", "reproduced", "trained", "validated_all"]

Map = Callable[..., Iterable[Any]]  # Any: the built-in map or a process pool's


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A published row and the same method here, over the same seeds."""

    row: Row
    average: float
    spread: float
    pooled: float
    seeds: int

    @property
    def gap(self) -> float:
        """Return ours less the published average."""
        return self.average - self.row.average

    @property
    def noise(self) -> float:
        """Return the standard error of `gap` from the spread over seeds, theirs and ours."""
        return math.hypot(self.row.spread, self.spread) / math.sqrt(self.seeds)


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The setting that cross-validation chose, trained on all training rows.

    Attributes:
        candidate: what was chosen.
        validated: its mean criterion on held-out training patients.
        tried: how many settings were.
        models: one a seed.
    """

    candidate: Candidate
    validated: float
    tried: int
    models: Array


def trained(task: Task, sites: Sequence[Site], setting: Setting, seeds: Sequence[int]) -> Array:
    """Return one model a seed of all training rows, "(seeds, features + 1)"."""
    start = np.stack([start_of(seed, sites[0].train.x.shape[1]) for seed in seeds])
    kept = [[np.arange(len(site.train))] * len(seeds) for site in sites]
    streams = streams_of(task, setting, kept, [(seed,) for seed in seeds])
    return train(task, setting, [site.train for site in sites], streams, start)


def reproduced(benchmark: Benchmark, row: Row, seeds: Sequence[int]) -> Reproduced:
    """Return a published row under the identical protocol."""
    task, sites = benchmark.task, benchmark.sites
    pooled_sites = benchmark.tables[benchmark.pooled_test]
    models = trained(task, sites, row.setting, seeds)
    averages = [task.average(sites, scores(model, sites)) for model in models]
    pooled = [task.pooled(pooled_sites, scores(model, pooled_sites)) for model in models]
    spread = float(np.std(averages, ddof=1)) if len(seeds) > 1 else 0.0
    return Reproduced(row, float(np.mean(averages)), spread, float(np.mean(pooled)), len(seeds))


def validated_all(
    benchmark: Benchmark,
    tried: Sequence[Candidate],
    folds: Sequence[Fold],
    *,
    over: Map = map,
) -> list[float]:
    """Return each candidate's mean criterion on held-out training patients; no test row is read.

    Args:
        benchmark: whose training rows.
        tried: what may be chosen.
        folds: of the training rows.
        over: ``map``, or the map of a pool of processes.
    """
    sites = [benchmark.tables[candidate.scaling] for candidate in tried]
    settings = [candidate.setting for candidate in tried]
    return list(over(validated, repeat(benchmark.task), sites, settings, repeat(folds)))


def best(
    benchmark: Benchmark,
    tried: Sequence[Candidate],
    values: Sequence[float],
    *,
    seeds: Sequence[int],
) -> Best:
    """Return the candidate with the best value, the first one of equals, trained for each seed."""
    index = int(np.argmax(values))
    sites = benchmark.tables[tried[index].scaling]
    models = trained(benchmark.task, sites, tried[index].setting, seeds)
    return Best(tried[index], float(values[index]), len(tried), models)


def central_model(benchmark: Benchmark, folds: Sequence[Fold]) -> tuple[float, Array]:
    """Return the ridge that the same folds choose and its model of all training rows, pooled."""
    sites = benchmark.tables["pooled"]
    penalty = chosen_penalty(benchmark.task, sites, folds)
    return penalty, central(benchmark.task, sites, penalty)
