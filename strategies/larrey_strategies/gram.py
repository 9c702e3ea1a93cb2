"""Inner products of the sites' updates: all that a geometric rule needs to know of them.

The matrix is summed in float64 over pieces of a fixed size, in the model's and in roster order: a
product of two float32 values is exact in float64, so distances keep their digits where updates
differ little, and squares of the largest float32 do not overflow. Its bits depend on the updates
and on the machine's BLAS with one thread; not on how many elements were at hand at once, as long
as whole pieces were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from larrey_strategies.contract import Gram, Vector

__all__ = ["PIECE", "add_gram", "distances", "distances_to"]

PIECE = 4096  # elements multiplied at once; part of the result's bits


def add_gram(gram: Gram, blocks: Sequence[Vector]) -> None:
    """Add the inner products of one stretch of each update, roster order, to ``gram``.

    Every stretch but the model's last must be a multiple of `PIECE`.
    """
    size = blocks[0].size
    piece = np.empty((len(blocks), min(PIECE, size)), np.float64)
    for start in range(0, size, PIECE):
        rows = piece[:, : min(PIECE, size - start)]
        for row, block in zip(rows, blocks, strict=True):
            row[:] = block[start : start + PIECE]
        gram += rows @ rows.T


def distances(gram: Gram) -> NDArray[np.float64]:
    """Return the L2 distances between updates, "(sites, sites)"."""
    squares = np.diag(gram)
    between = squares[:, None] + squares[None, :] - 2 * gram
    np.fill_diagonal(between, 0.0)
    return np.sqrt(np.maximum(between, 0.0))


def distances_to(gram: Gram, factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the L2 distance of each update to the linear combination with ``factors``."""
    products = gram @ factors
    squared = np.diag(gram) - 2 * products + factors @ products
    return np.sqrt(np.maximum(squared, 0.0))
