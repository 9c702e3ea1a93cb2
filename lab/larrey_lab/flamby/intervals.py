"""Intervals over test patients: the same draws for every method, so that differences are paired.

Efron 1979, Annals of Statistics 7(1); percentiles. Patients are drawn with replacement within each
site; what differs between the five seeds is averaged before, so that an interval is of their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from larrey_lab.evaluation import Interval
from larrey_lab.flamby.data import Site
from larrey_lab.flamby.protocol import scores
from larrey_lab.flamby.tasks import Array, pairs

__all__ = ["average_accuracy", "draws_of", "interval", "pooled_concordance"]

Numbers = NDArray[np.float64]


def draws_of(sites: Sequence[Site], *, resamples: int = 2000, seed: int = 0) -> list[Numbers]:
    """Return how often each test patient is drawn, "(1 + resamples, patients)" a site.

    The first row is the test set as it is.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    draws = []
    for site in sites:
        count = len(site.test)
        drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
        draws.append(np.vstack([np.ones(count), drawn]).astype(np.float64))
    return draws


def average_accuracy(models: Array, sites: Sequence[Site], draws: list[Numbers]) -> Numbers:
    """Return the mean over sites and models of the accuracy, for each draw."""
    by_model = [scores(model, sites) for model in models]
    areas = []
    for i, (site, drawn) in enumerate(zip(sites, draws, strict=True)):
        right = np.mean([(z[i] > 0) == (site.test.y[:, 0] > 0) for z in by_model], axis=0)
        areas.append(drawn @ right / drawn.sum(axis=1))
    mean: Numbers = np.mean(areas, axis=0)
    return mean


def pooled_concordance(models: Array, sites: Sequence[Site], draws: list[Numbers]) -> Numbers:
    """Return the mean over models of the concordance of all patients together, for each draw."""
    y, drawn = np.concatenate([site.test.y for site in sites]), np.hstack(draws)
    counted = [pairs(y, np.concatenate(scores(model, sites))) for model in models]
    credit, comparable = np.mean([c for c, _ in counted], axis=0), counted[0][1]
    mean: Numbers = ((drawn @ credit) * drawn).sum(axis=1) / ((drawn @ comparable) * drawn).sum(
        axis=1
    )
    return mean


def interval(values: Numbers) -> Interval:
    """Return the first value with the percentiles of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(float(values[0]), float(low), float(high))
