"""The same linear model with all rows in one place: ridge regression, to convergence.

What federation is measured against; nothing federated happens here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from larrey_lab.flamby.data import Part, Site
from larrey_lab.flamby.folds import Fold, criterion
from larrey_lab.flamby.protocol import scores
from larrey_lab.flamby.tasks import Array, Binary, Task

__all__ = ["PENALTIES", "central", "chosen_penalty"]

PENALTIES = tuple(float(10**power) for power in np.arange(-4, 1.6, 0.5))
Numbers = NDArray[np.float64]


def central(task: Task, sites: Sequence[Site], penalty: float) -> Array:
    """Return the model of all training rows together, intercept last (0 for Cox).

    Minimises the mean loss plus ``penalty / 2`` times the squared weights; L-BFGS of scipy.
    """
    from scipy.optimize import minimize

    part = Part(*(np.concatenate([getattr(s.train, a) for s in sites]) for a in ("x", "y")))
    x = np.column_stack([part.x, np.ones(len(part))]).astype(np.float64)
    shrunk = np.r_[np.full(x.shape[1] - 1, penalty), 0.0]
    loss = _logistic if isinstance(task, Binary) else _Cox(part.y)

    def goal(w: Numbers) -> tuple[float, Numbers]:
        value, pull = loss(x @ w, part.y)
        return value + float(shrunk @ (w * w)) / 2, x.T @ pull + shrunk * w

    found = minimize(goal, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B")
    model: Array = found.x.astype(np.float32)
    return model


def chosen_penalty(task: Task, sites: Sequence[Site], folds: Sequence[Fold]) -> float:
    """Return the penalty with the best mean criterion over the same folds as every setting."""

    def validated(penalty: float) -> float:
        parts = [fold.sites(sites) for fold in folds]
        models = [central(task, part, penalty) for part in parts]
        pairs = zip(models, parts, strict=True)
        return float(np.mean([criterion(task, part, scores(m, part)) for m, part in pairs]))

    return max(PENALTIES, key=validated)


def _logistic(score: Numbers, y: Array) -> tuple[float, Numbers]:
    label = y[:, 0]
    loss = float(np.mean(np.logaddexp(0, score) - label * score))
    return loss, ((1 + np.tanh(score / 2)) / 2 - label) / len(score)


class _Cox:
    """Negative log partial likelihood a patient, Breslow's rule for deaths on one day."""

    def __init__(self, y: Array) -> None:
        self._order = np.argsort(-y[:, 1], kind="stable")
        time = y[self._order, 1]
        self._died = y[self._order, 0].astype(np.float64)
        # Who is at risk at a time: all up to the last row of that time, in falling order.
        self._last = np.searchsorted(-time, -time, side="right") - 1

    def __call__(self, score: Numbers, y: Array) -> tuple[float, Numbers]:
        known = score[self._order]
        weight = np.exp(known - known.max())
        risk = np.cumsum(weight)[self._last]
        loss = -float(self._died @ (known - known.max() - np.log(risk))) / len(score)
        hazard = np.zeros_like(weight)
        np.add.at(hazard, self._last, self._died / risk)
        later = np.cumsum(hazard[::-1])[::-1]
        pull = np.empty_like(score)
        pull[self._order] = (weight * later - self._died) / len(score)
        return loss, pull
