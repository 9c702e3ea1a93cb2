"""The weighted mean of the sites' updates, one block at a time.

The sum runs in roster order in float32, so that the result has the same bits whatever the order
in which updates arrived. Two buffers of the caller hold all intermediate values.
McMahan, Moore, Ramage, Hampson, Agüera y Arcas 2017, "Communication-efficient learning of deep
networks from decentralized data", algorithm 1, https://arxiv.org/abs/1602.05629.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from larrey_strategies.contract import Vector

__all__ = ["Mean", "linear_sum", "weighted_mean"]


@dataclass(frozen=True, slots=True)
class Mean:
    """No parameters."""

    weighted: ClassVar[bool] = True

    def combine(
        self, blocks: Sequence[Vector], weights: Sequence[float], *, out: Vector, scratch: Vector
    ) -> Vector:
        """Return `weighted_mean`."""
        return weighted_mean(blocks, weights, out=out, scratch=scratch)


def weighted_mean(
    blocks: Sequence[Vector], weights: Sequence[float], *, out: Vector, scratch: Vector
) -> Vector:
    """Return ``out``, now the mean of ``blocks``; weights are divided by their sum.

    Args:
        blocks: the same stretch of each contributor's update, in roster order.
        weights: one positive number a block; renormalised over those who contributed.
        out: receives the mean; no block may share its memory.
        scratch: a second buffer of the same length; its content is lost.

    Raises:
        ValueError: no blocks, another number of weights, or a weight that is not positive.
    """
    if not blocks or len(blocks) != len(weights):
        raise ValueError(f"expected a weight for each block, found {len(blocks)}, {len(weights)}")
    if not all(weight > 0 for weight in weights):
        raise ValueError(f"weights must be positive, found {list(weights)}")
    total = float(sum(weights))
    return linear_sum(blocks, [weight / total for weight in weights], out=out, scratch=scratch)


def linear_sum(
    blocks: Sequence[Vector], factors: Sequence[float], *, out: Vector, scratch: Vector
) -> Vector:
    """Return ``out``, now the sum of ``blocks`` times their factors as they are."""
    np.multiply(blocks[0], np.float32(factors[0]), out=out)
    for block, factor in zip(blocks[1:], factors[1:], strict=True):
        np.multiply(block, np.float32(factor), out=scratch)
        np.add(out, scratch, out=out)
    return out
