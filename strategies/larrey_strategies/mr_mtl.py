"""MR-MTL: every site keeps a model of its own, held near the mean of all sites' models.

Liu, Hu, Wu, Smith 2022, "On privacy and personalization in cross-silo federated learning",
algorithm A1, https://arxiv.org/abs/2206.07902. The local objective gains
``lambda/2 * |w_k - w_mean|^2``; a site goes on from its own ``w_k`` and sends what its model moved
by, from which the mean of all models follows. 0 is training alone, a large lambda nearly federated
averaging. The personal model stays at the site.

Departures. The pull is added to the noised gradient, where the authors' code clips it together with
each patient's: lambda then costs neither epsilon nor a part of the clip. Sites may stay away: the
server adds the contributors' part ``share`` of their mean update, and a site keeps its ``w_k`` only
once its update was applied, so that the mean stays that of all sites' models under the study's
weights. Lambda must be chosen beforehand: trying values on patients' data costs their epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from larrey_strategies.contract import LocalRound, RoundFacts, State, Vector
from larrey_strategies.ranges import NOT_NEGATIVE, require_ranges

__all__ = ["MrMtl"]


@dataclass(frozen=True, slots=True)
class MrMtl:
    """Both halves: the server's model is the mean of all ``w_k``, of which each site keeps one."""

    lambda_: Annotated[float, NOT_NEGATIVE, "pull towards the mean of all sites' models"]
    shared: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        require_ranges(self)

    def init(self, params: Vector) -> State:
        """Return no state."""
        return {}

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + share * aggregate``: who stayed away did not move."""
        return params + facts.share * aggregate, {}

    def site_init(self, params: Vector) -> State:
        """Return ``w_k``, the study's first model."""
        return {"w_k": params.copy()}

    def begin(self, w_global: Vector, site_state: State) -> Vector:
        """Return ``w_k``."""
        return site_state["w_k"]

    def correction(
        self, w: Vector, w_global: Vector, site_state: State, shared: State
    ) -> Vector | None:
        """Return ``lambda * (w - w_global)``."""
        return self.lambda_ * (w - w_global)

    def site_step(self, site_state: State, local: LocalRound) -> State:
        """Return ``w_k + delta``."""
        return {"w_k": site_state["w_k"] + local.delta}
