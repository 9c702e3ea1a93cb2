"""FedDyn: each site's objective is shifted until all sites agree on the stationary point.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama 2021, "Federated learning based on dynamic
regularization", algorithm 1, https://openreview.net/forum?id=B7v4QMR6Z9w. The local objective gains
``-<g_i, w> + alpha/2 * |w - w_global|^2``, whose gradient is added to the noised one; ``g_i`` is
``g_i - alpha * delta`` afterwards, the gradient at the local minimum.

alpha adds to each site's curvature, so that local steps that just converge without it may not
with it. Departures: the number of local steps is the study's, where the paper minimises exactly;
sites may weigh differently, for which ``share`` is the contributors' part of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from larrey_strategies.contract import LocalRound, RoundFacts, State, Vector
from larrey_strategies.ranges import POSITIVE, require_ranges

__all__ = ["FedDyn"]


@dataclass(frozen=True, slots=True)
class FedDyn:
    """Both halves: ``h`` at the server, which stays there, and ``g_i`` at a site."""

    alpha: Annotated[float, POSITIVE, "regularisation; the paper tries 0.001 to 0.1"]
    shared: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_ranges(self)

    def init(self, params: Vector) -> State:
        """Return ``h`` of zeros, the mean of all g_i."""
        return {"h": np.zeros_like(params)}

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + aggregate - h / alpha`` with h updated first."""
        h: Vector = state["h"] - (self.alpha * facts.share) * aggregate
        return params + aggregate - (1 / self.alpha) * h, {"h": h}

    def site_init(self, params: Vector) -> State:
        """Return ``g_i`` of zeros."""
        return {"g_i": np.zeros_like(params)}

    def begin(self, w_global: Vector, site_state: State) -> Vector:
        """Return the global model."""
        return w_global

    def correction(
        self, w: Vector, w_global: Vector, site_state: State, shared: State
    ) -> Vector | None:
        """Return ``alpha * (w - w_global) - g_i``."""
        return self.alpha * (w - w_global) - site_state["g_i"]

    def site_step(self, site_state: State, local: LocalRound) -> State:
        """Return ``g_i - alpha * delta``."""
        return {"g_i": site_state["g_i"] - self.alpha * local.delta}
