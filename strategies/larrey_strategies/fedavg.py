"""Federated averaging: the new model is the old one plus the sites' mean update.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, "Communication-efficient learning of deep
networks from decentralized data", algorithm 1, https://arxiv.org/abs/1602.05629. Departure: sites
send differences, which gives the same model when their weights sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from larrey_strategies.contract import Aggregator, State, Vector

__all__ = ["FedAvg"]


@dataclass(frozen=True, slots=True)
class FedAvg:
    """No parameters and no state."""

    aggregator: ClassVar[Aggregator] = "mean"

    def init(self, params: Vector) -> State:
        """Return no state."""
        return {}

    def step(self, params: Vector, state: State, aggregate: Vector) -> tuple[Vector, State]:
        """Return ``params + aggregate``."""
        return params + aggregate, state

    def correction(self, w: Vector, w_global: Vector, site_state: State) -> Vector | None:
        """Return None: local training is plain gradient descent."""
        return None
