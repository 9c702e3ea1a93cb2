"""FedAvgM: momentum at the server.

Hsu, Qi, Brown 2019, "Measuring the effects of non-identical data distribution for federated visual
classification", https://arxiv.org/abs/1909.06335: ``v = beta * v + delta`` and the
model moves by ``v``. Departure: ``eta`` is the server learning rate of Reddi et al. 2021; 1 is the
paper's own rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from larrey_strategies.contract import RoundFacts, State, Vector
from larrey_strategies.ranges import FRACTION, POSITIVE, require_ranges

__all__ = ["FedAvgM"]


@dataclass(frozen=True, slots=True)
class FedAvgM:
    """The server adds a decaying sum of the aggregates."""

    beta: Annotated[float, FRACTION, "decay of the momentum"] = 0.9
    eta: Annotated[float, POSITIVE, "server learning rate"] = 1.0
    shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_ranges(self)

    def init(self, params: Vector) -> State:
        """Return momentum ``v`` of zeros."""
        return {"v": np.zeros_like(params)}

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + eta * v`` with the momentum updated first."""
        v = self.beta * state["v"] + aggregate
        return params + self.eta * v, {"v": v}
