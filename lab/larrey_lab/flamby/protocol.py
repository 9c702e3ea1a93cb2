"""FLamby's rounds over Larrey's strategies: full participation, 100 local steps, weights by size.

The algorithm is the one that `larrey_strategies.registry` makes from a study's words; local
training is numpy on a linear model, exact and without privacy. Seeds and folds train side by side:
every part used here works element by element, so that replications are one long vector. No server,
no client and no policy: public research data only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from larrey_lab.flamby.data import Part, Site
from larrey_lab.flamby.tasks import Array, Task
from larrey_strategies.contract import CoordinateRule, LocalRound, RoundFacts, State, Vector
from larrey_strategies.registry import Algorithm, AlgorithmWords, make_algorithm

__all__ = ["LOCAL_STEPS", "Setting", "batches", "scores", "start_of", "train"]

LOCAL_STEPS = 100  # num_updates of FLamby's benchmark
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is chosen before a training.

    Attributes:
        algorithm: preset and its parameters, as in a study file.
        rate: local learning rate.
        batch: rows of a mini-batch; 0 for all rows of a site.
        momentum: of local steps, begun anew in each round.
    """

    algorithm: AlgorithmWords
    rate: float
    batch: int
    momentum: float = 0.0


def train(
    task: Task, setting: Setting, parts: Sequence[Part], streams: Sequence[Index], start: Array
) -> Array:
    """Return the models after the task's rounds, "(replications, features + 1)".

    Args:
        task: whose rounds and loss.
        setting: algorithm and local training.
        parts: each site's training patients.
        streams: each site's `batches`, "(replications, rounds * steps, rows)".
        start: the models before the first round; the intercept is the last column.
    """
    algorithm, shape = make_algorithm(setting.algorithm), start.shape
    params: Vector = start.reshape(-1)
    state = algorithm.optimizer.init(params)
    memories: list[State] = [algorithm.objective.site_init(params) for _ in parts]
    weights = [float(len(part)) for part in parts]
    facts = RoundFacts(LOCAL_STEPS, setting.rate, setting.momentum)
    for index in range(task.rounds):
        shared = {name: state[name] for name in algorithm.optimizer.shared}
        span = slice(index * LOCAL_STEPS, (index + 1) * LOCAL_STEPS)
        deltas = []
        for i, (part, stream) in enumerate(zip(parts, streams, strict=True)):
            work = _Local(task, facts, part, stream[:, span])
            delta = _descend(work, algorithm, params.reshape(shape), memories[i], shared)
            local = LocalRound(params, delta, shared, facts)
            memories[i] = algorithm.objective.site_step(memories[i], local)
            deltas.append(delta)
        aggregate = _mean(algorithm, deltas, weights)
        params, state = algorithm.optimizer.step(params, state, aggregate, facts)
    return params.reshape(shape)


def batches(rows: Index, *, size: int, steps: int, random: np.random.Generator) -> Index:
    """Return which rows each step uses, "(steps, size)", -1 where a batch is short.

    The rows are shuffled, cut into batches and, when they are used up, shuffled again; batches go
    on over the rounds. As FLamby's ``DataLoaderWithMemory``; its random numbers are torch's.
    """
    count = -(-len(rows) // size)
    filled = np.full((-(-steps // count), count * size), -1, np.int64)
    for epoch in filled:
        epoch[: len(rows)] = random.permutation(rows)
    return filled.reshape(-1, size)[:steps]


def start_of(seed: int, features: int) -> Array:
    """Return the linear layer that ``torch.manual_seed(seed)`` begins with, intercept last."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    bound = 1 / features**0.5
    weights = torch.empty(1, features).uniform_(-bound, bound, generator=generator)
    intercept = torch.empty(1).uniform_(-bound, bound, generator=generator)
    start: Array = torch.cat([weights[0], intercept]).numpy()
    return start


def scores(model: Array, sites: Sequence[Site]) -> list[Array]:
    """Return each site's test scores under one model."""
    return [site.test.x @ model[:-1] + model[-1] for site in sites]


@dataclass(frozen=True, slots=True, eq=False)
class _Local:
    """One site's work in one round."""

    task: Task
    facts: RoundFacts
    part: Part
    stream: Index  # "(replications, steps, rows)"


def _descend(
    work: _Local, algorithm: Algorithm, start: Array, memory: State, shared: State
) -> Vector:
    """Return the site's update: its local model less the global one, flat."""
    rate, momentum = (np.float32(v) for v in (work.facts.learning_rate, work.facts.momentum))
    inputs = np.column_stack([work.part.x, np.ones(len(work.part), np.float32)])
    begin = algorithm.objective.begin(start.reshape(-1), memory).reshape(start.shape)
    model, velocity = begin.copy(), np.zeros_like(start)
    for rows in np.moveaxis(work.stream, 1, 0):
        x, y = inputs[rows], work.part.y[rows]
        mask = (rows >= 0).astype(np.float32)
        score = (x @ model[:, :, None])[..., 0]
        gradient = (work.task.pull(score, y, mask)[:, None] @ x)[:, 0]
        extra = algorithm.objective.correction(model.reshape(-1), start.reshape(-1), memory, shared)
        if extra is not None:
            gradient = gradient + extra.reshape(start.shape)
        velocity = momentum * velocity + gradient
        model = model - rate * velocity
    return (model - begin).reshape(-1)


def _mean(algorithm: Algorithm, deltas: Sequence[Vector], weights: Sequence[float]) -> Vector:
    rule = algorithm.aggregator
    if not isinstance(rule, CoordinateRule):
        raise TypeError("replications lie side by side: a rule over whole updates would mix them")
    out, scratch = np.empty_like(deltas[0]), np.empty_like(deltas[0])
    return rule.combine(deltas, weights, out=out, scratch=scratch)
