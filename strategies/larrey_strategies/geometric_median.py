"""RFA: the geometric median of the updates, by the smoothed Weiszfeld algorithm.

Pillutla, Kakade, Harchaoui 2022, "Robust aggregation for federated learning", algorithm 2,
https://arxiv.org/abs/1912.13445. Weights are the paper's alpha. Departure: every iterate is a
linear combination of the updates, so that the Gram matrix is enough and an iteration costs
sites^2 operations; hence many more of them than the paper's three or four.
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

__all__ = ["GeometricMedian"]


@dataclass(frozen=True, slots=True)
class GeometricMedian:
    """The point with the smallest weighted sum of distances to the updates."""

    nu: Annotated[float, POSITIVE, "smoothing: shortest distance that is divided by"] = 1e-6
    iterations: Annotated[int, ITERATIONS, "of the Weiszfeld algorithm"] = 200
    weighted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_ranges(self)

    def coefficients(self, gram: Gram, weights: Sequence[float]) -> NDArray[np.float64]:
        """Return factors that sum to one, small for updates far from the others."""
        alpha = np.asarray(weights, np.float64) / sum(weights)
        factors = alpha
        for _ in range(int(self.iterations)):
            beta = alpha / np.maximum(self.nu, distances_to(gram, factors))
            factors = beta / beta.sum()
        return factors
