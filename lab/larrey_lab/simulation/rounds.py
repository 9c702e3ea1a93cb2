"""The rounds of a federation in one process: the one home of what a coordinator does with updates.

Aggregation and server step are `larrey_strategies`; who trains, and how, is an argument, and so is
what a site keeps between rounds. An update that is returned counts as applied.
Same updates, same models, bit for bit: everything runs in roster order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from larrey_protocol.errors import UsageError
from larrey_protocol.study import Study
from larrey_strategies.combining import aggregate
from larrey_strategies.contract import RoundFacts, State, Vector
from larrey_strategies.registry import Algorithm, make_algorithm, words_of

__all__ = ["Ask", "Everyone", "Plan", "Present", "Request", "Share", "plan_of", "rounds"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is the same in every round.

    Attributes:
        algorithm: of the study.
        weights: public, in roster order.
        facts: the study's own numbers; ``share`` is filled in for each round.
        rounds: how many.
    """

    algorithm: Algorithm
    weights: tuple[float, ...]
    facts: RoundFacts
    rounds: int


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What the sites of a round are asked to start from.

    Attributes:
        number: of the round, from 1.
        start: the global model; not to be written to.
        shared: what of the server's state travels with it.
        sites: places in the roster of those who take part, rising.
    """

    number: int
    start: Vector
    shared: State
    sites: tuple[int, ...]


Ask = Callable[[Request], Sequence[Vector]]
"""Returns the updates of the request's sites, in their order; keeps what a site keeps."""
Present = Callable[[int, int], tuple[int, ...]]
"""Who takes part, rising, at least one: of round ``number`` among ``sites``."""


class Everyone:
    """All sites, in every round."""

    def __call__(self, number: int, sites: int) -> tuple[int, ...]:
        """Return all places."""
        return tuple(range(sites))


@dataclass(frozen=True, slots=True)
class Share:
    """The same number of sites each round, drawn anew without replacement.

    Attributes:
        of_all: share in (0, 1], rounded up to a whole number of sites.
        seed: of the draw alone.
    """

    of_all: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.of_all <= 1:
            raise UsageError(
                "invalid-share",
                f"--present must be in (0, 1], found {self.of_all:g}",
                "Correct it.",
            )

    def __call__(self, number: int, sites: int) -> tuple[int, ...]:
        """Return the places drawn for a round."""
        random = np.random.Generator(np.random.PCG64((self.seed, number)))
        drawn = random.permutation(sites)[: int(np.ceil(self.of_all * sites))]
        return tuple(sorted(int(site) for site in drawn))


def plan_of(study: Study) -> Plan:
    """Return a study's plan.

    Raises:
        UsageError: as `larrey_strategies.registry.make_algorithm`.
    """
    training = study.file.training
    return Plan(
        make_algorithm(words_of(training)),
        study.weights,
        RoundFacts(training.local_steps, training.learning_rate, training.momentum),
        training.rounds,
    )


def rounds(
    plan: Plan, start: Vector, ask: Ask, *, present: Present | None = None
) -> Iterator[Vector]:
    """Give the global model after each round.

    Raises:
        UsageError: ``too-few-updates``, from an aggregator whose bound needs more.
    """
    algorithm, who = plan.algorithm, present or Everyone()
    params, state = start, algorithm.init(start)
    total = sum(plan.weights)
    for number in range(1, plan.rounds + 1):
        sites = who(number, len(plan.weights))
        shared = {name: state[name] for name in algorithm.shared}
        updates = ask(Request(number, params, shared, sites))
        weights = [plan.weights[site] for site in sites]
        facts = replace(plan.facts, share=min(1.0, sum(weights) / total))
        mean = aggregate(algorithm.aggregator, updates, weights)
        params, state = algorithm.step(params, state, mean, facts)
        yield params
