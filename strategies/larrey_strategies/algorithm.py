"""A whole federated algorithm: local objective, aggregator, server optimizer, as one value.

It adds nothing to its parts; `larrey_strategies.registry` makes it from a study's words.
"""

from __future__ import annotations

from dataclasses import dataclass

from larrey_strategies.contract import (
    Aggregator,
    LocalObjective,
    LocalRound,
    RoundFacts,
    ServerOptimizer,
    State,
    Vector,
)

__all__ = ["Algorithm"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The three parts, and each one's functions by the same name."""

    objective: LocalObjective
    aggregator: Aggregator
    optimizer: ServerOptimizer

    @property
    def shared(self) -> tuple[str, ...]:
        """Return the names of the server's vectors that travel with the model."""
        return self.optimizer.shared

    def init(self, params: Vector) -> State:
        """Return the server's state before the first round."""
        return self.optimizer.init(params)

    def step(
        self, params: Vector, state: State, aggregate: Vector, facts: RoundFacts
    ) -> tuple[Vector, State]:
        """Return new parameters and state after one round, element by element."""
        return self.optimizer.step(params, state, aggregate, facts)

    def site_init(self, params: Vector) -> State:
        """Return a site's state before its first round."""
        return self.objective.site_init(params)

    def begin(self, w_global: Vector, site_state: State) -> Vector:
        """Return where a site's training begins, from which its update is counted."""
        return self.objective.begin(w_global, site_state)

    def correction(
        self, w: Vector, w_global: Vector, site_state: State, shared: State
    ) -> Vector | None:
        """Return what a site adds to each noised gradient, None for nothing."""
        return self.objective.correction(w, w_global, site_state, shared)

    def site_step(self, site_state: State, local: LocalRound) -> State:
        """Return the site's state after a round; in force once its update was applied."""
        return self.objective.site_step(site_state, local)
