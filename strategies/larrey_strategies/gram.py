"""Inner products of the sites' updates: all that a geometric rule needs to know of them.

The matrix is summed in float64 over products of a fixed size, in the model's and in roster order;
each product is one float32 matrix multiplication. A distance is off by some ten-thousandths of the
updates' norms at most, far less where they are long: who is mistaken for a neighbour then, is one.
A piece whose squares are beyond float32 is multiplied in float64. The bits depend on the updates
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
    piece = np.empty((len(blocks), min(PIECE, size)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, size, PIECE):
            rows = piece[:, : min(PIECE, size - start)]
            for row, block in zip(rows, blocks, strict=True):
                row[:] = block[start : start + PIECE]
            gram += _products(rows)


def _products(rows: NDArray[np.float32]) -> NDArray[np.floating]:
    products = rows @ rows.T
    if np.isfinite(products).all():
        return products
    wide = rows.astype(np.float64)
    return wide @ wide.T


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
