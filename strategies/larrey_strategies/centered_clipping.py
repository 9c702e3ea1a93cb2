"""Centred clipping: pull a centre towards every update, by at most tau each.

Karimireddy, He, Jaggi 2021, "Learning from history for Byzantine robust optimization", algorithm
2 (aggregation rule "CC"), https://arxiv.org/abs/2012.10333. Sites count the same. Departure: the
centre starts at zero, "no change of the model", in place of the round before's aggregate; hence a
few iterations where the paper has one. One hostile update of n moves the centre by tau / n at
most in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from larrey_strategies.contract import Gram
from larrey_strategies.gram import distances_to
from larrey_strategies.ranges import ITERATIONS, POSITIVE, require_ranges

__all__ = ["CenteredClipping"]


@dataclass(frozen=True, slots=True)
class CenteredClipping:
    """The centre after some iterations of ``v += mean(clip(x_i - v, tau))``."""

    tau: Annotated[float, POSITIVE, "radius (L2); about an honest update's distance to the mean"]
    iterations: Annotated[int, ITERATIONS, "of the centre"] = 3
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_ranges(self)

    def coefficients(self, gram: Gram, weights: Sequence[float]) -> NDArray[np.float64]:
        """Return factors of the updates in the centre; they need not sum to one."""
        sites = len(gram)
        factors = np.zeros(sites)
        for _ in range(int(self.iterations)):
            kept = self.tau / np.maximum(self.tau, distances_to(gram, factors))
            factors = (1 - kept.mean()) * factors + kept / sites
        return factors
