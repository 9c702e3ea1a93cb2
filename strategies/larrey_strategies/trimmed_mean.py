"""The coordinate-wise mean without the largest and smallest values.

Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-robust distributed learning: towards optimal
statistical rates", definition 2, https://arxiv.org/abs/1803.01498. Sites count the same, as the
bound needs. Of n values the beta * n largest and as many smallest are left out, rounded down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from larrey_strategies.contract import Vector
from larrey_strategies.networks import mean_of_middle

__all__ = ["TrimmedMean"]

_ROUNDING = 1e-9  # 0.29 * 100 is 28.999... in float64


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """The mean of the middle of each coordinate's values."""

    beta: float  # share left out at each end, at least that of the hostile sites, in [0, 1/2)
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 0.5:
            raise ValueError(f"beta must be in [0, 0.5), found {self.beta}")

    def combine(
        self, blocks: Sequence[Vector], weights: Sequence[float], *, out: Vector, scratch: Vector
    ) -> Vector:
        """Return ``out``, now the trimmed mean; a NaN makes its coordinate NaN."""
        cut = int(self.beta * len(blocks) + _ROUNDING)
        return mean_of_middle(blocks, cut, out=out)
