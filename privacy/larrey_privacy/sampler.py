"""Poisson sampling of patients, from the operating system's generator. Does not import torch.

Each step draws every patient independently with the study's rate; amplification by sampling rests
on this draw being secret and exact, so there is no switch to shuffle instead, and no seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from larrey_privacy.cohort import Cohort

__all__ = ["Draw", "PoissonSampler"]

_RESOLUTION = 2**53


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """The patients of one step and their rows, patient after patient; private.

    Attributes:
        rows: int64 row numbers of the cohort "(sum of counts,)".
        counts: int64 rows of each drawn patient "(drawn,)", each from 1 to max_rows.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64]


class PoissonSampler:
    """Draws patients; ``entropy`` is the operating system's generator outside of tests."""

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy

    def draw(self, cohort: Cohort, *, rate: float, max_rows: int) -> Draw:
        """Return each patient with probability ``rate``, at most ``max_rows`` rows of each.

        The rate is rounded down to a multiple of 2^-53. Of a patient with more rows, a uniform
        subset without replacement. An empty draw is a draw.
        """
        threshold = np.uint64(int(rate * _RESOLUTION))
        if rate >= 1:
            chosen = np.arange(cohort.patients, dtype=np.int64)
        else:
            chosen = np.flatnonzero(self._words(cohort.patients) >> np.uint64(11) < threshold)
        rows, counts = cohort.rows_of(chosen)
        if counts.size and int(counts.max()) > max_rows:
            return self._thinned(rows, counts, max_rows)
        return Draw(rows, counts)

    def _thinned(self, rows: NDArray[np.int64], counts: NDArray[np.int64], max_rows: int) -> Draw:
        owner = np.repeat(np.arange(len(counts)), counts)
        shuffled = np.lexsort((self._words(len(rows)), owner))
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return Draw(rows[shuffled[rank < max_rows]], np.minimum(counts, max_rows))

    def _words(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(self._entropy(8 * count), dtype=np.uint64)
