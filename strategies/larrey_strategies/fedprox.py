"""FedProx: federated averaging whose sites are held near the global model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020, "Federated optimization in heterogeneous
networks", algorithm 2, https://arxiv.org/abs/1812.06127. The local objective gains
``mu/2 * |w - w_global|^2``; here its gradient is added to the noised gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from larrey_strategies.contract import Aggregator, State, Vector

__all__ = ["FedProx"]


@dataclass(frozen=True, slots=True)
class FedProx:
    """The server averages; the sites add the gradient of the proximal term."""

    mu: float  # >= 0; 0 is federated averaging
    aggregator: ClassVar[Aggregator] = "mean"

    def __post_init__(self) -> None:
        if not self.mu >= 0:
            raise ValueError(f"mu must not be negative, found {self.mu}")

    def init(self, params: Vector) -> State:
        """Return no state."""
        return {}

    def step(self, params: Vector, state: State, aggregate: Vector) -> tuple[Vector, State]:
        """Return ``params + aggregate``."""
        return params + aggregate, state

    def correction(self, w: Vector, w_global: Vector, site_state: State) -> Vector | None:
        """Return ``mu * (w - w_global)``."""
        return self.mu * (w - w_global)
