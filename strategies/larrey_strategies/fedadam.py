"""FedAdam: the sites' mean update is a pseudo-gradient for Adam at the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan 2021, "Adaptive federated
optimization", algorithm 2, https://arxiv.org/abs/2003.00295. As there: no bias correction, tau
outside the root, and v starts at tau^2. Flower 1.41 departs from the paper: it starts v at zero
and multiplies eta by Adam's bias correction of step t+1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from larrey_strategies.contract import Aggregator, State, Vector

__all__ = ["FedAdam"]


@dataclass(frozen=True, slots=True)
class FedAdam:
    """Parameters as in the paper; the defaults are those of its experiments (section 5)."""

    eta: float  # server learning rate; depends on the model, so there is no default
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3  # degree of adaptivity
    aggregator: ClassVar[Aggregator] = "mean"

    def __post_init__(self) -> None:
        if not (self.eta > 0 and self.tau > 0):
            raise ValueError(f"eta and tau must be positive, found {self.eta} and {self.tau}")
        if not (0 <= self.beta_1 < 1 and 0 <= self.beta_2 < 1):
            raise ValueError(f"beta_1 and beta_2 must be in [0, 1), found {self}")

    def init(self, params: Vector) -> State:
        """Return momentum ``m`` of zeros and second moment ``v`` of tau^2."""
        return {"m": np.zeros_like(params), "v": np.full_like(params, self.tau**2)}

    def step(self, params: Vector, state: State, aggregate: Vector) -> tuple[Vector, State]:
        """Return ``params + eta * m / (sqrt(v) + tau)`` with the moments updated first."""
        m = self.beta_1 * state["m"] + (1 - self.beta_1) * aggregate
        v = self.beta_2 * state["v"] + (1 - self.beta_2) * (aggregate * aggregate)
        root: Vector = np.sqrt(v)
        return params + self.eta * m / (root + self.tau), {"m": m, "v": v}

    def correction(self, w: Vector, w_global: Vector, site_state: State) -> Vector | None:
        """Return None: local training is plain gradient descent."""
        return None
