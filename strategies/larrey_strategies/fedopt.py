"""FedAdagrad, FedAdam, FedYogi: the sites' mean update is a pseudo-gradient for the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan 2021, "Adaptive federated
optimization", algorithm 2, https://arxiv.org/abs/2003.00295. As there: no bias correction, tau
outside the root, and v starts at tau^2. Flower 1.41 departs from the paper: v starts at zero, and
its FedAdam multiplies eta by Adam's bias correction of step t+1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from larrey_strategies.contract import RoundFacts, State, Vector
from larrey_strategies.ranges import FRACTION, POSITIVE, require_ranges

__all__ = ["FedAdagrad", "FedAdam", "FedYogi"]


@dataclass(frozen=True, slots=True)
class FedAdagrad:
    """Squared updates are summed, so that steps only become shorter."""

    eta: Annotated[float, POSITIVE, "server learning rate; depends on the model"]
    beta_1: Annotated[float, FRACTION, "decay of the momentum"] = 0.0
    tau: Annotated[float, POSITIVE, "degree of adaptivity"] = 1e-3
    shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_ranges(self)

    def init(self, params: Vector) -> State:
        """Return momentum ``m`` of zeros and second moment ``v`` of tau^2."""
        return _start(params, self.tau)

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + eta * m / (sqrt(v) + tau)`` with the moments updated first."""
        m = self.beta_1 * state["m"] + (1 - self.beta_1) * aggregate
        v = state["v"] + aggregate * aggregate
        return _moved(params, m, v, self.eta, self.tau)


@dataclass(frozen=True, slots=True)
class FedAdam:
    """The defaults are those of the paper's experiments (section 5)."""

    eta: Annotated[float, POSITIVE, "server learning rate; depends on the model"]
    beta_1: Annotated[float, FRACTION, "decay of the momentum"] = 0.9
    beta_2: Annotated[float, FRACTION, "decay of the second moment"] = 0.99
    tau: Annotated[float, POSITIVE, "degree of adaptivity"] = 1e-3
    shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_ranges(self)

    def init(self, params: Vector) -> State:
        """Return momentum ``m`` of zeros and second moment ``v`` of tau^2."""
        return _start(params, self.tau)

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + eta * m / (sqrt(v) + tau)`` with the moments updated first."""
        m = self.beta_1 * state["m"] + (1 - self.beta_1) * aggregate
        v = self.beta_2 * state["v"] + (1 - self.beta_2) * (aggregate * aggregate)
        return _moved(params, m, v, self.eta, self.tau)


@dataclass(frozen=True, slots=True)
class FedYogi:
    """As FedAdam, but the second moment moves by the update's square, up or down."""

    eta: Annotated[float, POSITIVE, "server learning rate; depends on the model"]
    beta_1: Annotated[float, FRACTION, "decay of the momentum"] = 0.9
    beta_2: Annotated[float, FRACTION, "decay of the second moment"] = 0.99
    tau: Annotated[float, POSITIVE, "degree of adaptivity"] = 1e-3
    shared: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_ranges(self)

    def init(self, params: Vector) -> State:
        """Return momentum ``m`` of zeros and second moment ``v`` of tau^2."""
        return _start(params, self.tau)

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + eta * m / (sqrt(v) + tau)`` with the moments updated first."""
        m = self.beta_1 * state["m"] + (1 - self.beta_1) * aggregate
        square = aggregate * aggregate
        v = state["v"] - (1 - self.beta_2) * square * np.sign(state["v"] - square)
        return _moved(params, m, v, self.eta, self.tau)


def _start(params: Vector, tau: float) -> State:
    return {"m": np.zeros_like(params), "v": np.full_like(params, tau**2)}


def _moved(params: Vector, m: Vector, v: Vector, eta: float, tau: float) -> tuple[Vector, State]:
    root: Vector = np.sqrt(v)
    return params + eta * m / (root + tau), {"m": m, "v": v}
