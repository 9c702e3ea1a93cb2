"""What privacy costs and what federation is worth, over repeated splits of public data.

Every arm gets the same rows of the same split: all sites together with differential privacy, the
same without, each site alone with the same mechanism (so the same epsilon), and a central
regression as reference. Held-out patients of all sites together are the headline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from larrey_lab.evaluation import Interval, auc, auc_or_too_few, over_splits
from larrey_lab.rehearsal import (
    HeldOut,
    Scores,
    Split,
    alone,
    central_scores,
    federate,
    scores,
    split_cohorts,
    without_privacy,
)
from larrey_privacy.cohort import Cohort
from larrey_protocol.study import Study

__all__ = ["CENTRAL", "PRIVATE", "WITHOUT", "Arm", "Utility", "alone_at", "measure"]

PRIVATE = "federated, with DP"
WITHOUT = "federated, without DP"
CENTRAL = "all rows in one place, without DP"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train, and how good its models were.

    Attributes:
        name: one of the constants here, or ``alone_at(site)``.
        pooled: AUC on all sites' held-out patients.
        by_site: AUC on each site's own; None where a class has fewer than ten patients.
    """

    name: str
    pooled: Interval
    by_site: Mapping[str, Interval | None]


@dataclass(frozen=True, slots=True)
class Utility:
    """The comparison of all arms.

    Attributes:
        splits: how many; held_out: share of patients; patients, rows: held out in one split.
        arms: private and plain federation, each site alone, central.
        dp_gap: AUC lost to differential privacy, over the paired splits.
        gain: AUC won over the patient-weighted mean of the sites alone at the same epsilon.
        federated_gap: AUC lost to federation without DP against the central regression.
        central_gap: AUC lost to federation with DP against the central regression.
        curve: pooled AUC of the private model after each round, the first being round 1.
        curve_without: the same without differential privacy.
    """

    splits: int
    held_out: float
    patients: int
    rows: int
    arms: tuple[Arm, ...]
    dp_gap: Interval
    gain: Interval
    federated_gap: Interval
    central_gap: Interval
    curve: tuple[Interval, ...]
    curve_without: tuple[Interval, ...]

    def arm(self, name: str) -> Arm:
        """Return the arm of that name; raises KeyError."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class _Tally:
    """AUCs of one arm, split after split."""

    pooled: list[float] = field(default_factory=list)
    by_site: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, trainings: Sequence[Scores], held: HeldOut, sites: Sequence[str]) -> None:
        """Note one split: the mean AUC of equally made models."""
        self.pooled.append(float(np.mean([auc(held.label, score) for score in trainings])))
        for index, site in enumerate(sites):
            here = held.site == index
            label, patient = held.label[here], held.patient[here]
            cells = [auc_or_too_few(label, score[here], patient) for score in trainings]
            known = [cell for cell in cells if cell is not None]
            self.by_site.setdefault(site, []).append(float(np.mean(known)) if known else None)


@dataclass(frozen=True, slots=True)
class _Tallies:
    """What all splits gave so far."""

    arms: dict[str, _Tally] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    curve_without: list[list[float]] = field(default_factory=list)

    def arm(self, name: str) -> _Tally:
        return self.arms.setdefault(name, _Tally())


def alone_at(site: str) -> str:
    """Return the name of the arm in which one site trains without the others, with DP."""
    return f"{site} alone, with DP"


def measure(
    study: Study,
    cohorts: Mapping[str, Cohort],
    *,
    seeds: Iterable[int],
    held_out: float,
    repeats: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Utility:
    """Return the comparison over one split per seed.

    Args:
        study: a private study; its own hyper-parameters serve every arm.
        cohorts: each site's whole public cohort (`larrey_lab.rehearsal.cohorts_of`).
        seeds: of the splits.
        held_out: share of patients in (0, 1).
        repeats: trainings in each split where noise or sampling is involved; their AUCs are
            averaged, which takes that chance out of the figures and leaves that of the split.
        progress: called with the number of splits done.
    """
    tallies, last = _Tallies(), None
    for done, seed in enumerate(seeds):
        last = split_cohorts(cohorts, study.contract.label, held_out=held_out, seed=seed)
        _one_split(study, last, repeats, tallies)
        progress(done + 1)
    if last is None:
        raise ValueError("no seeds, so no splits")
    return _summary(study, tallies, last, held_out)


def _one_split(study: Study, split: Split, repeats: int, tallies: _Tallies) -> None:
    held, sites = split.held_out, study.file.site_names
    is_sampled = study.file.privacy.sampling_rate < 1  # otherwise nothing is left to chance
    plain_repeats = repeats if is_sampled else 1
    for name, arm, count, curve in (
        (PRIVATE, study, repeats, tallies.curve),
        (WITHOUT, without_privacy(study), plain_repeats, tallies.curve_without),
    ):
        runs = [_scored_rounds(arm, split) for _ in range(count)]
        tallies.arm(name).add([run[-1] for run in runs], held, sites)
        areas = [[auc(held.label, score) for score in run] for run in runs]
        curve.append([float(value) for value in np.mean(areas, axis=0)])
    for site in sites:
        models = [alone(study, site, split.training[site])[-1] for _ in range(repeats)]
        trainings = [scores(study, model, held.features) for model in models]
        tallies.arm(alone_at(site)).add(trainings, held, sites)
    tallies.arm(CENTRAL).add([central_scores(split)], held, sites)


def _scored_rounds(study: Study, split: Split) -> list[Scores]:
    """Return the held-out scores of the global model after each round."""
    models = federate(study, split.training)[1:]
    return [scores(study, model, split.held_out.features) for model in models]


def _summary(study: Study, tallies: _Tallies, split: Split, held_out: float) -> Utility:
    def interval(values: Iterable[float]) -> Interval:
        return over_splits(list(values), held_out=held_out)

    def difference(one: str, other: str) -> Interval:
        a, b = tallies.arm(one).pooled, tallies.arm(other).pooled
        return interval(x - y for x, y in zip(a, b, strict=True))

    def cell(values: Sequence[float | None]) -> Interval | None:
        known = [value for value in values if value is not None]
        return interval(known) if len(known) == len(values) else None

    names = [alone_at(site) for site in study.file.site_names]
    means = np.average([tallies.arm(n).pooled for n in names], axis=0, weights=study.weights)
    private = tallies.arm(PRIVATE).pooled
    return Utility(
        splits=len(private),
        held_out=held_out,
        patients=len(np.unique(split.held_out.patient)),
        rows=len(split.held_out.label),
        arms=tuple(
            Arm(name, interval(t.pooled), {site: cell(v) for site, v in t.by_site.items()})
            for name, t in tallies.arms.items()
        ),
        dp_gap=difference(WITHOUT, PRIVATE),
        gain=interval(float(p - m) for p, m in zip(private, means, strict=True)),
        federated_gap=difference(CENTRAL, WITHOUT),
        central_gap=difference(CENTRAL, PRIVATE),
        curve=tuple(interval(r) for r in zip(*tallies.curve, strict=True)),
        curve_without=tuple(interval(r) for r in zip(*tallies.curve_without, strict=True)),
    )
