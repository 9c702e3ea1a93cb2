"""FedProx: sites are held near the global model.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith 2020, "Federated optimization in heterogeneous
networks", algorithm 2, https://arxiv.org/abs/1812.06127. The local objective gains
``mu/2 * |w - w_global|^2``; here its gradient is added to the noised gradient. Departure: the
number of local steps is the study's, where the paper asks for a gamma-inexact minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from larrey_strategies.contract import LocalRound, State, Vector
from larrey_strategies.ranges import NOT_NEGATIVE, require_ranges

__all__ = ["FedProx"]


@dataclass(frozen=True, slots=True)
class FedProx:
    """The sites add the gradient of the proximal term; 0 is federated averaging."""

    mu: Annotated[float, NOT_NEGATIVE, "pull towards the round's global model"]
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_ranges(self)

    def site_init(self, params: Vector) -> State:
        """Return no state."""
        return {}

    def begin(self, w_global: Vector, site_state: State) -> Vector:
        """Return the global model."""
        return w_global

    def correction(
        self, w: Vector, w_global: Vector, site_state: State, shared: State
    ) -> Vector | None:
        """Return ``mu * (w - w_global)``."""
        return self.mu * (w - w_global)

    def site_step(self, site_state: State, local: LocalRound) -> State:
        """Return no state."""
        return {}
