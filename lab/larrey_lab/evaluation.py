"""How good a score is, with its uncertainty: AUC, intervals over splits and over patients.

Held-out labels are public here; at a hospital no such figure leaves (privacy.md, rule P19). A cell
with fewer than ten patients of a class is not computed: its interval would span everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_CLASS", "Interval", "auc", "auc_or_too_few", "bootstrap_auc", "over_splits"]

MIN_CLASS = 10  # patients of a class below which a cell says "too few"

Scores = NDArray[np.floating]
Labels = NDArray[np.floating] | NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return e.g. ``0.889 [0.871, 0.906]``."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(label: Labels, score: Scores) -> float:
    """Return the area under the ROC curve: P(positive above negative), ties one half.

    Raises:
        ValueError: one class is absent.
    """
    return float(_weighted_auc(label, score, np.ones((1, len(label))))[0])


def auc_or_too_few(label: Labels, score: Scores, patient: NDArray[np.integer]) -> float | None:
    """Return the AUC, None where fewer than ``MIN_CLASS`` patients are in a class.

    A patient with rows of both classes counts in both.
    """
    is_positive = np.asarray(label, bool)
    classes = (np.unique(patient[is_positive]), np.unique(patient[~is_positive]))
    return auc(label, score) if min(len(c) for c in classes) >= MIN_CLASS else None


def bootstrap_auc(
    label: Labels,
    score: Scores,
    patient: NDArray[np.integer],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the AUC with its percentile interval over resampled held-out patients.

    Whole patients are drawn with replacement, so that several rows of one patient stay together.
    Efron 1979, Annals of Statistics 7(1); percentile interval. Draws without a class are dropped.
    """
    _, owner = np.unique(patient, return_inverse=True)
    patients = int(owner.max()) + 1
    random = np.random.Generator(np.random.PCG64(seed))
    draws = random.multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    with np.errstate(invalid="ignore"):
        areas = _weighted_auc(label, score, draws[:, owner].astype(np.float64))
    low, high = np.nanpercentile(areas, [2.5, 97.5])
    return Interval(auc(label, score), float(low), float(high))


def over_splits(values: Sequence[float], *, held_out: float) -> Interval:
    """Return the mean over random splits with its 95 % interval.

    Splits overlap, so that the plain standard error is too small; the variance is multiplied by
    ``1/J + held_out / (1 - held_out)``. Nadeau and Bengio 2003, "Inference for the generalization
    error", Machine Learning 52, section 4; Student's t with J - 1 degrees of freedom.
    """
    from scipy.stats import t

    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Interval(mean, math.nan, math.nan)
    factor = 1 / count + held_out / (1 - held_out)
    half = float(t.ppf(0.975, count - 1)) * math.sqrt(factor * float(np.var(values, ddof=1)))
    return Interval(mean, mean - half, mean + half)


def _weighted_auc(
    label: Labels, score: Scores, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return one area for each row of ``weights`` "(draws, rows)"."""
    is_positive = np.asarray(label, bool)
    if is_positive.all() or not is_positive.any():
        raise ValueError("an AUC needs both classes")
    order = np.argsort(score, kind="stable")
    ranked = np.asarray(score)[order]
    firsts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of each run of ties
    positive = np.add.reduceat(weights[:, order] * is_positive[order], firsts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~is_positive[order], firsts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    area: NDArray[np.float64] = (positive * below).sum(axis=1) / pairs
    return area
