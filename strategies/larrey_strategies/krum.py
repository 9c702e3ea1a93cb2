"""Krum and Multi-Krum: keep the updates that lie closest to their neighbours.

Blanchard, El Mhamdi, Guerraoui, Stainer 2017, "Machine learning with adversaries: Byzantine
tolerant gradient descent", section 4, https://arxiv.org/abs/1703.02757. An update's score is the
sum of its squared distances to its n - f - 2 nearest others; of equal scores the first in the
roster wins. Sites count the same, as the bound needs. Departure: with f = 0, one or two sites are
enough, since no update is to be kept out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.errors import UsageError
from larrey_strategies.contract import Gram
from larrey_strategies.gram import distances
from larrey_strategies.ranges import SITES, Range, require_ranges

__all__ = ["Krum", "MultiKrum"]


@dataclass(frozen=True, slots=True)
class Krum:
    """The one update with the lowest score."""

    f: Annotated[int, SITES, "hostile sites that are withstood"]
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_ranges(self)

    @property
    def fewest(self) -> int:
        """Return how many contributors the paper's bound needs."""
        return _fewest(self.f)

    def coefficients(self, gram: Gram, weights: Sequence[float]) -> NDArray[np.float64]:
        """Return 1 for the chosen update, 0 for every other.

        Raises:
            UsageError: ``too-few-updates``, below ``fewest``.
        """
        return _mean_of_best(gram, int(self.f), 1)


@dataclass(frozen=True, slots=True)
class MultiKrum:
    """The mean of the m updates with the lowest scores, of all if there are fewer."""

    f: Annotated[int, SITES, "hostile sites that are withstood"]
    m: Annotated[int, Range(1, 1000, high_is_in=True), "updates kept, at most n - f - 2"]
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_ranges(self)

    @property
    def fewest(self) -> int:
        """Return how many contributors the paper's bound needs."""
        return _fewest(self.f)

    def coefficients(self, gram: Gram, weights: Sequence[float]) -> NDArray[np.float64]:
        """Return 1/m for the chosen updates, 0 for every other.

        Raises:
            UsageError: ``too-few-updates``, below ``fewest``.
        """
        return _mean_of_best(gram, int(self.f), int(self.m))


def _fewest(f: float) -> int:
    return 2 * int(f) + 3 if f else 1


def _mean_of_best(gram: Gram, f: int, m: int) -> NDArray[np.float64]:
    sites = len(gram)
    if sites < _fewest(f):
        text = f"Krum with f = {f} needs {_fewest(f)} updates, found {sites}"
        raise UsageError("too-few-updates", text, "Ask for more contributors a round, or lower f.")
    squared = np.sort(distances(gram) ** 2, axis=1)  # each row begins with its own zero
    scores = squared[:, : max(2, sites - f - 1)].sum(axis=1)
    best = np.argsort(scores, kind="stable")[:m]
    factors = np.zeros(sites)
    factors[best] = 1 / len(best)
    return factors
