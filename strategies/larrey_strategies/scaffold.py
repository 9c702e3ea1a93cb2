"""SCAFFOLD: control variates take the drift of each site out of its local steps.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh 2020, "SCAFFOLD: stochastic controlled averaging for
federated learning", algorithm 1 with option II, https://arxiv.org/abs/1910.06378. Option I, a
gradient at the global model, would be one more access to the data and is not offered (P18).

Departures. The server needs no second vector from a site: in option II ``delta c_i`` is
``-c - delta y_i / (K eta_l)``, whose mean follows from the mean update. Sites may weigh
differently: c is then the mean of all c_i under the study's weights, for which ``share`` is the
contributors' part of them. With local momentum K is replaced by |a|_1 (Wang et al. 2020), so that
c_i stays a mean gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from larrey_strategies.contract import LocalRound, RoundFacts, State, Vector
from larrey_strategies.ranges import POSITIVE, require_ranges

__all__ = ["Scaffold"]


@dataclass(frozen=True, slots=True)
class Scaffold:
    """Both halves: ``c`` at the server, which travels with the model, and ``c_i`` at a site."""

    eta_g: Annotated[float, POSITIVE, "server learning rate"] = 1.0
    shared: ClassVar[tuple[str, ...]] = ("c",)
    needs: ClassVar[tuple[str, ...]] = ("c",)

    def __post_init__(self) -> None:
        require_ranges(self)

    def init(self, params: Vector) -> State:
        """Return control variate ``c`` of zeros."""
        return {"c": np.zeros_like(params)}

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + eta_g * aggregate``, and c moved by the mean of all delta c_i."""
        mean_delta_c: Vector = -state["c"] - _per_path(facts) * aggregate
        return params + self.eta_g * aggregate, {"c": state["c"] + facts.share * mean_delta_c}

    def site_init(self, params: Vector) -> State:
        """Return control variate ``c_i`` of zeros."""
        return {"c_i": np.zeros_like(params)}

    def begin(self, w_global: Vector, site_state: State) -> Vector:
        """Return the global model."""
        return w_global

    def correction(
        self, w: Vector, w_global: Vector, site_state: State, shared: State
    ) -> Vector | None:
        """Return ``c - c_i``."""
        return shared["c"] - site_state["c_i"]

    def site_step(self, site_state: State, local: LocalRound) -> State:
        """Return ``c_i - c - delta / (K eta_l)``: the mean of the site's noised gradients."""
        mean_gradient = -_per_path(local.facts) * local.delta
        return {"c_i": site_state["c_i"] - local.shared["c"] + mean_gradient}


def _per_path(facts: RoundFacts) -> float:
    """Return 1 / (K eta_l), what turns an update into a mean gradient with its sign changed."""
    return 1 / (facts.plain_steps * facts.learning_rate)
