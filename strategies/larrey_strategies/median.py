"""The coordinate-wise median of the updates.

Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-robust distributed learning: towards optimal
statistical rates", definition 1, https://arxiv.org/abs/1803.01498. Sites count the same, as the
bound needs. Of an even number it is the mean of the two in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from larrey_strategies.contract import Vector
from larrey_strategies.networks import mean_of_middle

__all__ = ["Median"]


@dataclass(frozen=True, slots=True)
class Median:
    """No parameters."""

    weighted: ClassVar[bool] = False

    def combine(
        self, blocks: Sequence[Vector], weights: Sequence[float], *, out: Vector, scratch: Vector
    ) -> Vector:
        """Return ``out``, now the median of each coordinate; a NaN makes its coordinate NaN."""
        return mean_of_middle(blocks, (len(blocks) - 1) // 2, out=out)
