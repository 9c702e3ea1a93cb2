"""FedNova: each site's update is divided by the steps it stands for before it is averaged.

Wang, Liu, Liang, Joshi, Poor 2020, "Tackling the objective inconsistency problem in heterogeneous
federated optimization", https://arxiv.org/abs/2007.07481:
``x + tau_eff * sum_i p_i * delta_i / |a_i|_1`` with the paper's |a|_1 of local momentum, and
tau_eff = sum_i p_i tau_i.

Every site of a study takes the same K steps with the same momentum, so that all |a_i|_1 are equal
and the rule is ``x + K / |a|_1 * mean``: without local momentum exactly federated averaging, with
it federated averaging whose mean is scaled back to K steps. The inconsistency that the paper
removes does not arise here; the name is kept for who compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from larrey_strategies.contract import RoundFacts, State, Vector

__all__ = ["FedNova"]


@dataclass(frozen=True, slots=True)
class FedNova:
    """The server scales the aggregate by K / |a|_1; no parameters and no state."""

    shared: ClassVar[tuple[str, ...]] = ()

    def init(self, params: Vector) -> State:
        """Return no state."""
        return {}

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return ``params + K / |a|_1 * aggregate``."""
        return params + (facts.local_steps / facts.plain_steps) * aggregate, {}
