"""Any aggregator over any place where updates lie, stretch by stretch in roster order.

The one path of the coordinator's worker (files), of simulations and of the bench (arrays). A
coordinate rule needs one pass; a geometric rule one for the Gram matrix, and is a linear
combination from there on. Memory is a few stretches, whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from larrey_strategies.contract import Aggregator, CoordinateRule, GeometricRule, Vector
from larrey_strategies.gram import PIECE, add_gram
from larrey_strategies.mean import linear_sum

__all__ = ["Read", "Settled", "aggregate", "settle", "stretches"]

Read: TypeAlias = Callable[[int, int, int], Vector]
"""Of a site's update (its place in the roster), from an element on, so many elements; each site's
are valid until the same site is read again."""

_STRETCH = 1 << 17  # elements; the sum and what is added to it fit the second-level cache
_TOGETHER = 1 << 20  # elements of all sites' stretches: 4 MiB


@dataclass(frozen=True, slots=True)
class Settled:
    """An aggregator that knows all it needs: stretches may be combined in any order.

    Attributes:
        rule: coordinate by coordinate.
        sites: places in the roster of those that are read.
        weights: of these sites.
    """

    rule: CoordinateRule
    sites: tuple[int, ...]
    weights: tuple[float, ...]

    def combine(self, read: Read, start: int, *, out: Vector, scratch: Vector) -> Vector:
        """Return ``out``, now the aggregate of its length from ``start``."""
        blocks = [read(site, start, out.size) for site in self.sites]
        return self.rule.combine(blocks, self.weights, out=out, scratch=scratch)


@dataclass(frozen=True, slots=True)
class _Linear:
    """The sum of updates times their factors, which stand in the weights' place."""

    weighted: ClassVar[bool] = True

    def combine(
        self, blocks: Sequence[Vector], weights: Sequence[float], *, out: Vector, scratch: Vector
    ) -> Vector:
        return linear_sum(blocks, weights, out=out, scratch=scratch)


def settle(rule: Aggregator, weights: Sequence[float], size: int, read: Read) -> Settled:
    """Return ``rule`` for these updates of ``size`` elements; a geometric rule reads them once.

    Raises:
        UsageError: ``too-few-updates``, for a rule whose bound needs more.
    """
    everybody = tuple(range(len(weights)))
    if not isinstance(rule, GeometricRule):
        return Settled(rule, everybody, tuple(weights))
    gram = np.zeros((len(weights), len(weights)))
    for start, count in stretches(size, len(weights)):
        add_gram(gram, [read(site, start, count) for site in everybody])
    factors = rule.coefficients(gram, weights)
    counting = tuple(site for site in everybody if factors[site] != 0)
    return Settled(_Linear(), counting, tuple(float(factors[site]) for site in counting))


def stretches(size: int, sites: int) -> Iterator[tuple[int, int]]:
    """Yield (start, count), the first the longest; each begins at a multiple of `PIECE`."""
    count = min(_STRETCH, _TOGETHER // max(1, sites))
    count = max(PIECE, count // PIECE * PIECE)
    for start in range(0, size, count):
        yield start, min(count, size - start)


def aggregate(
    rule: Aggregator,
    updates: Sequence[Vector],
    weights: Sequence[float],
    *,
    out: Vector | None = None,
) -> Vector:
    """Return the aggregate of updates in memory, which are not copied, in roster order.

    Args:
        rule: of the study.
        updates: whole ones.
        weights: one for each.
        out: receives the aggregate; a new vector if there is none.

    Raises:
        UsageError: as `settle`.
    """
    out = np.empty_like(updates[0]) if out is None else out

    def read(site: int, start: int, count: int) -> Vector:
        return updates[site][start : start + count]

    settled = settle(rule, weights, out.size, read)
    scratch = np.empty(min(_STRETCH, out.size), np.float32)
    for start, count in stretches(out.size, len(updates)):
        target = out[start : start + count]
        settled.combine(read, start, out=target, scratch=scratch[:count])
    return out
