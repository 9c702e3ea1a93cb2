"""Norm bounding: the weighted mean of updates scaled down to a largest norm.

Sun, Kairouz, Suresh, McMahan 2019, "Can you really backdoor federated learning?", section 4,
https://arxiv.org/abs/1911.07963. Departure: no noise is added here; noise is the privacy
mechanism's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from larrey_strategies.contract import Gram
from larrey_strategies.ranges import POSITIVE, require_ranges

__all__ = ["NormBounding"]


@dataclass(frozen=True, slots=True)
class NormBounding:
    """The mean in which no update counts for more than its share of ``bound``."""

    bound: Annotated[float, POSITIVE, "M, largest L2 norm of an update"]
    weighted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_ranges(self)

    def coefficients(self, gram: Gram, weights: Sequence[float]) -> NDArray[np.float64]:
        """Return each update's share times what scales it to ``bound`` at most."""
        norms = np.sqrt(np.diag(gram))
        shares = np.asarray(weights, np.float64) / sum(weights)
        return shares * (self.bound / np.maximum(self.bound, norms))
