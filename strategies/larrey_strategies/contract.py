"""What every federated optimisation strategy offers; one file per paper implements it.

Pure functions of arrays: the aggregation worker calls ``step`` block by block over flat float32
vectors, so each strategy works element by element and never mutates what it is given. The site's
half of an algorithm (``correction``) stands beside the server's, so that neither drifts.
Not here: who takes part, privacy, transport. Weights come from `larrey_protocol.study`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Aggregator", "State", "Strategy", "Vector"]

Vector: TypeAlias = NDArray[np.float32]  # flat, in the layout order of the model
State: TypeAlias = Mapping[str, Vector]  # each of the parameters' length; empty if there is none
Aggregator: TypeAlias = Literal["mean"]  # how the sites' updates become one


class Strategy(Protocol):
    """A frozen dataclass whose fields are the paper's parameters."""

    @property
    def aggregator(self) -> Aggregator:
        """Return the rule that makes the sites' updates the ``aggregate`` of ``step``."""
        ...

    def init(self, params: Vector) -> State:
        """Return the server's state before the first round."""
        ...

    def step(self, params: Vector, state: State, aggregate: Vector) -> tuple[Vector, State]:
        """Return new parameters and state after one round.

        Element by element, so that any partition into blocks gives the same bits.

        Args:
            params: the model that the sites started from.
            state: what ``init`` or the round before returned.
            aggregate: the sites' updates (local minus global model) under ``aggregator``.
        """
        ...

    def correction(self, w: Vector, w_global: Vector, site_state: State) -> Vector | None:
        """Return what a site adds to each (already noised) gradient, None for nothing.

        A function of released values only: the current local model under DP, the round's global
        model, and site state derived from those. It is added after the noise and costs no epsilon.
        """
        ...
