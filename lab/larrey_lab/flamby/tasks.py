"""A linear model's gradient on a mini-batch and its score on patients, for both benchmarks.

Replications (seeds, folds) are the leading axis of everything, so that one pass trains them all; a
batch is "(replications, rows, ...)" and short batches are filled with rows whose mask is 0.
Both losses are FLamby's: means over the batch, for Cox over censored rows too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from larrey_lab.flamby.data import Site

__all__ = ["Binary", "Cox", "Task", "accuracy", "concordance", "pairs"]

Array = NDArray[np.float32]


class Task(Protocol):
    """A benchmark's protocol: how long, with what batches, and the loss's gradient."""

    batch: ClassVar[int]
    rounds: ClassVar[int]

    def pull(self, score: Array, y: Array, mask: Array) -> Array:
        """Return the mean loss's derivative by each score, "(replications, rows)"."""
        ...

    def average(self, sites: tuple[Site, ...], scores: list[Array]) -> float:
        """Return the mean over sites of the metric on their test rows."""
        ...

    def pooled(self, sites: tuple[Site, ...], scores: list[Array]) -> float:
        """Return the metric on all test rows together."""
        ...


@dataclass(frozen=True, slots=True)
class Binary:
    """Fed-Heart-Disease: logistic regression, accuracy at one half."""

    batch: ClassVar[int] = 4
    rounds: ClassVar[int] = 15

    def pull(self, score: Array, y: Array, mask: Array) -> Array:
        """Return ``(sigmoid(score) - label) / rows``."""
        probability = 0.5 * (1 + np.tanh(score / 2))  # the sigmoid, which cannot overflow
        residual: Array = ((probability - y[..., 0]) * mask).astype(np.float32, copy=False)
        residual /= mask.sum(axis=1, keepdims=True)
        return residual

    def average(self, sites: tuple[Site, ...], scores: list[Array]) -> float:
        """Return the mean accuracy of the sites."""
        return float(np.mean([accuracy(s.test.y, z) for s, z in zip(sites, scores, strict=True)]))

    def pooled(self, sites: tuple[Site, ...], scores: list[Array]) -> float:
        """Return the share of all patients that are right."""
        return accuracy(np.concatenate([s.test.y for s in sites]), np.concatenate(scores))


@dataclass(frozen=True, slots=True)
class Cox:
    """Fed-TCGA-BRCA: Cox partial likelihood within the batch, concordance index."""

    batch: ClassVar[int] = 8
    rounds: ClassVar[int] = 5

    def pull(self, score: Array, y: Array, mask: Array) -> Array:
        """Return the gradient of ``-mean(event * (score - log of the risk set's sum))``.

        Rows of equal time come one after the other, in the order of the batch, as in FLamby.
        """
        order = np.argsort(np.where(mask > 0, -y[..., 1], np.inf), axis=1, kind="stable")
        known = np.where(mask > 0, score, -np.inf)
        known, died = (np.take_along_axis(a, order, axis=1) for a in (known, y[..., 0] * mask))
        # In logarithms: the last patients' scores may be far below the highest of the batch.
        risk = np.logaddexp.accumulate(known, axis=1)
        hazard = np.where(died > 0, -risk, -np.inf)[:, ::-1]
        later = np.logaddexp.accumulate(hazard, axis=1)[:, ::-1]
        pull = np.empty_like(score)
        np.put_along_axis(pull, order, (np.exp(known + later) - died).astype(score.dtype), axis=1)
        mean: Array = pull / mask.sum(axis=1, keepdims=True)
        return mean

    def average(self, sites: tuple[Site, ...], scores: list[Array]) -> float:
        """Return the mean concordance of the sites."""
        return float(
            np.mean([concordance(s.test.y, z) for s, z in zip(sites, scores, strict=True)])
        )

    def pooled(self, sites: tuple[Site, ...], scores: list[Array]) -> float:
        """Return the concordance of all patients together."""
        return concordance(np.concatenate([s.test.y for s in sites]), np.concatenate(scores))


def accuracy(y: Array, score: Array) -> float:
    """Return the share of patients whose score is on the label's side of 0."""
    return float(np.mean((score > 0) == (y[:, 0] > 0)))


def concordance(y: Array, score: Array) -> float:
    """Return Harrell's C: of comparable pairs, how often who died first had the higher score.

    Harrell, Califf, Pryor, Lee, Rosati 1982, JAMA 247(18). Ties of the score count one half; a
    death and a censoring on one day are comparable, two deaths on one day are not: as lifelines.
    """
    credit, comparable = pairs(y, score)
    return float(credit.sum() / comparable.sum())


def pairs(y: Array, score: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return credit and comparability of each pair "(who died first, the other)"."""
    event, time = y[:, 0] > 0, y[:, 1]
    is_later = (time[None] > time[:, None]) | ((time[None] == time[:, None]) & ~event[None])
    comparable = (event[:, None] & is_later).astype(np.float64)
    gap = score[:, None] - score[None]
    return comparable * ((gap > 0) + 0.5 * (gap == 0)), comparable
