"""What the parts of a federated algorithm offer; one file per paper implements one or two of them.

An algorithm is a local objective, an aggregator and a server optimizer, put together by
`larrey_strategies.registry` from a study's words; a preset names the paper that proposed the
combination. Pure functions of flat float32 vectors, element by element wherever a block of the
model is all there is at hand, so that any partition into blocks gives the same bits; nothing that
is given is changed. The site's half stands beside the server's, so that neither drifts.
Not here: who takes part, privacy, transport. Weights come from `larrey_protocol.study`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Aggregator",
    "CoordinateRule",
    "GeometricRule",
    "LocalObjective",
    "LocalRound",
    "RoundFacts",
    "ServerOptimizer",
    "State",
    "Vector",
]

Vector: TypeAlias = NDArray[np.float32]  # flat, in the layout order of the model
State: TypeAlias = Mapping[str, Vector]  # each of the parameters' length; empty if there is none
Gram: TypeAlias = NDArray[np.float64]  # "(sites, sites)", inner products of the sites' updates


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What a server's step may know of a round beside the arrays.

    Attributes:
        local_steps: K, of every site.
        learning_rate: eta_l, of the sites.
        momentum: rho, of the sites.
        share: the contributors' part of all sites' weights, in (0, 1]; |S| / N of the papers
            where all sites weigh the same.
    """

    local_steps: int = 1
    learning_rate: float = 1.0
    momentum: float = 0.0
    share: float = 1.0

    @property
    def plain_steps(self) -> float:
        """Return |a|_1: how many plain steps K steps with heavy-ball momentum amount to.

        ``(K - rho (1 - rho^K) / (1 - rho)) / (1 - rho)``; K without momentum. Wang et al. 2020,
        https://arxiv.org/abs/2007.07481.
        """
        rho = self.momentum
        return (self.local_steps - rho * (1 - rho**self.local_steps) / (1 - rho)) / (1 - rho)


@dataclass(frozen=True, slots=True, eq=False)
class LocalRound:
    """What a site's own state may be computed from after its local training: released values.

    Attributes:
        start: the round's global model; training began at ``LocalObjective.begin``.
        delta: the update as the coordinator reads it: clipped and noised under DP, encoded and
            decoded again, so that the site's state and the server's are of the same numbers.
        shared: what of the server's state came with the model.
        facts: the study's own numbers.
    """

    start: Vector
    delta: Vector
    shared: State
    facts: RoundFacts


class ServerOptimizer(Protocol):
    """A frozen dataclass whose fields are the paper's parameters."""

    shared: ClassVar[tuple[str, ...]]  # names of state vectors that travel with the model

    def init(self, params: Vector) -> State:
        """Return the server's state before the first round."""
        ...

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return new parameters and state after one round, element by element.

        Args:
            params: the model that the sites started from.
            state: what ``init`` or the round before returned.
            aggregate: the sites' updates (local minus global model) under the aggregator.
            facts: of this round.
        """
        ...


class LocalObjective(Protocol):
    """A frozen dataclass: what a site adds to plain gradient descent, and what it remembers.

    Everything here is a function of released values (P18): the noised local model, the round's
    global model, state of the server that came with it, the site's own state derived from those.
    It is added after the noise and costs no epsilon. Whoever trains gives ``correction`` the
    round's global model, wherever training began.
    """

    needs: ClassVar[tuple[str, ...]]  # names of the server's state that it must be given

    def site_init(self, params: Vector) -> State:
        """Return a site's state before its first round, empty if the paper has none.

        ``params`` is the study's first model, whichever round is the site's first.
        """
        ...

    def begin(self, w_global: Vector, site_state: State) -> Vector:
        """Return where local training begins, from which the update is counted."""
        ...

    def correction(
        self, w: Vector, w_global: Vector, site_state: State, shared: State
    ) -> Vector | None:
        """Return what is added to each (already noised) gradient, None for nothing."""
        ...

    def site_step(self, site_state: State, local: LocalRound) -> State:
        """Return the site's state after a round; in force once its update was applied."""
        ...


@runtime_checkable
class CoordinateRule(Protocol):
    """An aggregator that works coordinate by coordinate: mean, median, trimmed mean."""

    weighted: ClassVar[bool]  # False: every site counts the same, which the paper's bound needs

    def combine(
        self, blocks: Sequence[Vector], weights: Sequence[float], *, out: Vector, scratch: Vector
    ) -> Vector:
        """Return ``out``, now the aggregate of the same stretch of each update, roster order."""
        ...


@runtime_checkable
class GeometricRule(Protocol):
    """An aggregator that needs distances between whole updates, then is a linear combination.

    Krum, geometric median, centred clipping, norm bounding: with the Gram matrix of the updates
    each distance is known, so one pass makes the matrix and a second one sums.
    """

    weighted: ClassVar[bool]

    def coefficients(self, gram: Gram, weights: Sequence[float]) -> NDArray[np.float64]:
        """Return a factor for each update, "(sites,)"; the aggregate is their sum as it is.

        Args:
            gram: inner products of the updates, accumulated in float64 in roster order.
            weights: public, positive; divided by their sum where the rule is weighted.
        """
        ...


Aggregator: TypeAlias = CoordinateRule | GeometricRule
