"""Federated averaging: the new model is the old one plus the sites' mean update.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, "Communication-efficient learning of deep
networks from decentralized data", algorithm 1, https://arxiv.org/abs/1602.05629. Departure: sites
send differences, which gives the same model when their weights sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from larrey_strategies.contract import LocalRound, RoundFacts, State, Vector

__all__ = ["FedAvg", "Plain"]


@dataclass(frozen=True, slots=True)
class FedAvg:
    """The server adds the aggregate; no parameters and no state."""

    shared: ClassVar[tuple[str, ...]] = ()

    def init(self, params: Vector) -> State:
        """Return no state."""
        return {}

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + aggregate``."""
        return params + aggregate, {}


@dataclass(frozen=True, slots=True)
class Plain:
    """The sites do plain gradient descent and remember nothing."""

    needs: ClassVar[tuple[str, ...]] = ()

    def site_init(self, params: Vector) -> State:
        """Return no state."""
        return {}

    def begin(self, w_global: Vector, site_state: State) -> Vector:
        """Return the global model."""
        return w_global

    def correction(
        self, w: Vector, w_global: Vector, site_state: State, shared: State
    ) -> Vector | None:
        """Return None."""
        return None

    def site_step(self, site_state: State, local: LocalRound) -> State:
        """Return no state."""
        return {}
