"""How good a model is at a study's task: the scores of each kind of label.

Pure numpy on held-out rows; all public here, as `larrey_lab.evaluation` says. The first score of a
task is its headline, with an interval over patients. Outputs are the network's: logits of one or
several classes, a scaled number, or logits of hazards (`larrey_protocol.tasks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from larrey_lab.evaluation import MIN_CLASS, Interval, auc
from larrey_protocol.labels import (
    BinaryLabel,
    ClassLabel,
    Label,
    NumberLabel,
    SurvivalLabel,
)

__all__ = [
    "Measure",
    "bootstrap",
    "concordance",
    "groups_of",
    "has_enough",
    "macro_auc",
    "measures",
    "probabilities",
    "survival_brier",
    "survival_curve",
]

Array = NDArray[np.float64]
_BLOCK = 256  # events compared with all rows at once


@dataclass(frozen=True, slots=True)
class Measure:
    """One score.

    Attributes:
        name: "AUC", "MAE" and so on.
        unit: of the value; empty for a pure number.
        of: takes label "(rows,)" and outputs "(rows, outputs)"; ValueError where the rows do not
            define it, such as an AUC of one class.
    """

    name: str
    unit: str
    of: Callable[[Array, Array], float]

    def or_none(self, y: Array, outputs: Array) -> float | None:
        """Return the score, None where the rows do not define it."""
        try:
            return self.of(y, outputs)
        except ValueError:
            return None


def measures(label: Label) -> tuple[Measure, ...]:
    """Return the scores of a task, its headline first."""
    match label:
        case BinaryLabel():
            return (
                Measure("AUC", "", lambda y, z: auc(y, z[:, 0])),
                *(Measure(name, "", partial(_two_classes, of)) for name, of in _OF_CLASSES.items()),
            )
        case ClassLabel():
            return (
                Measure("macro AUC", "", macro_auc),
                *(Measure(name, "", partial(_classes, of)) for name, of in _OF_CLASSES.items()),
            )
        case NumberLabel():
            scale = label.scale
            return (
                Measure("MAE", label.unit, lambda y, z: scale * _mean(np.abs(y - z[:, 0]))),
                Measure(
                    "RMSE", label.unit, lambda y, z: scale * _mean(np.square(y - z[:, 0])) ** 0.5
                ),
                Measure("R2", "", _r2),
            )
        case SurvivalLabel():
            return (
                Measure("concordance", "", _survival_concordance),
                Measure("Brier", "", survival_brier),
            )


def groups_of(label: Label, y: NDArray[np.floating], patient: NDArray[np.integer]) -> Array:
    """Return each patient's group, "(patients,)", by which patients are split and dealt evenly.

    Whether any row is positive or has an event; the highest class; the quarter of the number.
    """
    highest = np.full(int(patient.max()) + 1, -np.inf)
    np.maximum.at(highest, patient, y % 2 if label.kind == "survival" else y)
    if label.kind == "number":
        cuts = np.quantile(highest, [0.25, 0.5, 0.75])
        return np.searchsorted(cuts, highest).astype(np.float64)
    return highest


def has_enough(label: Label, y: NDArray[np.floating], patient: NDArray[np.integer]) -> bool:
    """Return whether no class, nor those with or without event, has under `MIN_CLASS` patients."""
    if label.kind == "number":
        return len(np.unique(patient)) >= MIN_CLASS
    kinds, groups = y % 2 if label.kind == "survival" else y, 2
    if label.kind == "class":
        groups = len(label.classes)
    return all(len(np.unique(patient[kinds == kind])) >= MIN_CLASS for kind in range(groups))


def bootstrap(
    measure: Measure,
    y: NDArray[np.floating],
    outputs: NDArray[np.floating],
    patient: NDArray[np.integer],
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Interval:
    """Return a score with its percentile interval over resampled patients, whole ones.

    Draws that do not define the score are left out, as in `larrey_lab.evaluation.bootstrap_auc`.
    """
    _, owner = np.unique(patient, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(owner))[:-1])
    random = np.random.Generator(np.random.PCG64(seed))
    found = []
    for _ in range(resamples):
        draw = np.concatenate([rows[i] for i in random.integers(0, len(rows), len(rows))])
        found.append(measure.or_none(_wide(y[draw]), _wide(outputs[draw])))
    value = measure.of(_wide(y), _wide(outputs))
    told = [one for one in found if one is not None]
    low, high = np.percentile(told, [2.5, 97.5]) if told else (value, value)
    return Interval(value, float(low), float(high))


def probabilities(outputs: Array) -> Array:
    """Return each class's probability "(rows, classes)"; one logit is that of the second class."""
    logits = np.column_stack([np.zeros(len(outputs)), outputs]) if _is_one(outputs) else outputs
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = raised / raised.sum(axis=1, keepdims=True)
    return shares


def macro_auc(y: Array, outputs: Array) -> float:
    """Return the mean over classes of the AUC of each class against the others.

    Raises:
        ValueError: a class is absent.
    """
    shares = probabilities(outputs)
    return _mean(np.array([auc(y == k, shares[:, k]) for k in range(shares.shape[1])]))


def concordance(time: Array, event: NDArray[np.bool_], risk: Array) -> float:
    """Return Harrell's C: of comparable pairs, how often who had the event first had more risk.

    Harrell, Califf, Pryor, Lee, Rosati 1982, JAMA 247(18). Ties of the risk count one half; an
    event and a censoring at one time are comparable, two events are not: as lifelines. In blocks
    of events, so that no table of all pairs is needed.

    Raises:
        ValueError: no two rows are comparable.
    """
    credit = comparable = 0.0
    for first in range(0, int(event.sum()), _BLOCK):
        one = np.flatnonzero(event)[first : first + _BLOCK, None]
        is_later = (time > time[one]) | ((time == time[one]) & ~event)
        gap = risk[one] - risk
        comparable += float(is_later.sum())
        credit += float((is_later * ((gap > 0) + 0.5 * (gap == 0))).sum())
    if not comparable:
        raise ValueError("no two rows can be compared")
    return credit / comparable


def survival_curve(outputs: Array) -> Array:
    """Return the probability of living through each interval and those before it."""
    # log(1 - h) of a hazard's logit
    alive: Array = np.exp(-np.cumsum(np.logaddexp(0.0, outputs), axis=1))
    return alive


def survival_brier(y: Array, outputs: Array) -> float:
    """Return the mean over the intervals' ends of the Brier score, weighted against censoring.

    Graf, Schmoor, Sauerbrei, Schumacher 1999, Statistics in Medicine 18: who was not seen any more
    weighs nothing from then on, and who was seen weighs one over the Kaplan-Meier estimate of still
    being seen. Somebody lost in an interval was not seen in it.
    """
    lived, event = y // 2, y % 2 > 0
    curve = survival_curve(outputs)
    ends = np.arange(1, curve.shape[1] + 1)
    at_risk = np.array([(lived >= j).sum() for j in range(len(ends))])
    lost = np.array([((lived == j) & ~event).sum() for j in range(len(ends))])
    seen = np.cumprod(1 - lost / np.maximum(at_risk, 1))  # in each interval
    inverse = 1 / np.where(seen > 0, seen, 1.0)  # where nobody is seen, nobody is weighed
    died = event[:, None] & (lived[:, None] < ends)
    alive = lived[:, None] >= ends
    of_event = inverse[np.minimum(lived, len(ends) - 1).astype(np.int64)]
    weight = died * of_event[:, None] + alive * inverse
    return _mean(weight * np.square(alive - curve))


def _survival_concordance(y: Array, outputs: Array) -> float:
    """Return Harrell's C between the time and the expected number of intervals lived through.

    Somebody lost in an interval counts as lost before its events.
    """
    lived, event = y // 2, y % 2
    return concordance(lived + event / 2, event > 0, -survival_curve(outputs).sum(axis=1))


def _accuracy(y: Array, shares: Array) -> float:
    return _mean(shares.argmax(axis=1) == y)


def _log_loss(y: Array, shares: Array) -> float:
    own = shares[np.arange(len(y)), y.astype(np.int64)]
    return _mean(-np.log(np.maximum(own, np.finfo(np.float64).tiny)))


def _brier(y: Array, shares: Array) -> float:
    """Return the mean squared distance to the truth, over all classes."""
    truth = y[:, None] == np.arange(shares.shape[1])
    return _mean(np.square(shares - truth).sum(axis=1))


_OF_CLASSES: dict[str, Callable[[Array, Array], float]] = {
    "accuracy": _accuracy,
    "log loss": _log_loss,
    "Brier": _brier,
}


def _classes(of: Callable[[Array, Array], float], y: Array, outputs: Array) -> float:
    return of(y, probabilities(outputs))


def _two_classes(of: Callable[[Array, Array], float], y: Array, outputs: Array) -> float:
    value = _classes(of, y, outputs)
    return value / 2 if of is _brier else value  # of the positive class alone, as is usual


def _r2(y: Array, outputs: Array) -> float:
    spread = np.square(y - y.mean()).sum()
    if not spread > 0:
        raise ValueError("R2 needs two different numbers")
    return float(1 - np.square(y - outputs[:, 0]).sum() / spread)


def _is_one(outputs: Array) -> bool:
    return len(outputs[0]) == 1


def _mean(values: Array | NDArray[np.bool_]) -> float:
    return float(np.mean(values))


def _wide(values: NDArray[np.floating]) -> Array:
    return np.asarray(values, np.float64)
