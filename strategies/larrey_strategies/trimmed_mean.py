"""The coordinate-wise mean without the largest and smallest values.

Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-robust distributed learning: towards optimal
statistical rates", definition 2, https://arxiv.org/abs/1803.01498. Sites count the same, as the
bound needs. Of n values the beta * n largest and as many smallest are left out, rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from larrey_strategies.contract import Vector
from larrey_strategies.networks import mean_of_middle
from larrey_strategies.ranges import HALF, require_ranges

__all__ = ["TrimmedMean"]

_ROUNDING = 1e-9  # 0.29 * 100 is 28.999... in float64


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """The mean of the middle of each coordinate's values."""

    beta: Annotated[float, HALF, "share left out at each end; at least that of hostile sites"]
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_ranges(self)

    def combine(
        self, blocks: Sequence[Vector], weights: Sequence[float], *, out: Vector, scratch: Vector
    ) -> Vector:
        """Return ``out``, now the trimmed mean; a NaN makes its coordinate NaN."""
        cut = int(self.beta * len(blocks) + _ROUNDING)
        return mean_of_middle(blocks, cut, out=out)
