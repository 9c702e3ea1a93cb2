"""A federation in one process: the study's own training and strategy, without servers.

The site's half is `larrey_client.app.local_update`, the coordinator's is the simulator's
(`larrey_lab.simulation.rounds`); only transport, gate and ledger are left out, which change no
number, and Flower's messages, which would cost each of hundreds of short trainings its set-up.
For public data and the lab: a rehearsal on a hospital's data would be a training like any other and
would cost epsilon.
Noise and sampling take no seed, so that figures of two rehearsals differ within their intervals.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from larrey_client.app import local_update
from larrey_client.data.cohort import load_cohort
from larrey_client.networks import build, load_flat
from larrey_client.remembering import NOTHING, Known, leaving, next_state, own_model
from larrey_lab.scores import groups_of
from larrey_lab.simulation.rounds import Request, plan_of, rounds
from larrey_lab.simulation.study_sites import as_read
from larrey_lab.tables import SiteTables, split_patients, write_csv
from larrey_privacy.cohort import Cohort, Features
from larrey_protocol.labels import Label
from larrey_protocol.models import initial_parameters
from larrey_protocol.study import NoPrivacy, Study
from larrey_strategies.contract import State

__all__ = [
    "HeldOut",
    "Scores",
    "Split",
    "alone",
    "central_scores",
    "cohorts_of",
    "federate",
    "outputs",
    "own_models",
    "scores",
    "split_cohorts",
    "study_alone",
    "without_privacy",
]

Vector = NDArray[np.float32]
Scores = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Rows that no training saw, of all sites together.

    Attributes:
        features: "(rows, features)".
        label: "(rows,)".
        patient: numbered over all sites, "(rows,)".
        site: index into the roster, "(rows,)".
    """

    features: NDArray[np.float32]
    label: NDArray[np.float32]
    patient: NDArray[np.int64]
    site: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Each site's training cohort, in roster order by name, and the pooled held-out rows."""

    training: Mapping[str, Cohort]
    held_out: HeldOut


def cohorts_of(tables: SiteTables, study: Study) -> dict[str, Cohort]:
    """Return each site's whole cohort, read and checked by the code that a hospital runs.

    Raises:
        DataError: a site's rows do not meet the contract.
    """
    with tempfile.TemporaryDirectory() as folder:
        cohorts = {}
        for site in study.file.site_names:
            path = Path(folder) / f"{site}.csv"
            write_csv(path, tables.columns, tables.sites[site])
            cohorts[site] = load_cohort(path, study.contract)
    return cohorts


def split_cohorts(
    cohorts: Mapping[str, Cohort], label: Label, *, held_out: float, seed: int
) -> Split:
    """Return training and held-out rows, of each group of the outcome alike.

    With a binary label the same patients as `larrey_lab.tables.split_rows`.
    """
    training: dict[str, Cohort] = {}
    parts: list[tuple[Vector, Vector, NDArray[np.int64], NDArray[np.int64]]] = []
    before = 0
    for index, (site, cohort) in enumerate(cohorts.items()):
        group = groups_of(label, cohort.label, cohort.patient)
        is_held = split_patients(group, held_out=held_out, seed=seed)[cohort.patient]
        training[site] = _part(cohort, ~is_held)
        rows = np.flatnonzero(is_held)
        patient = cohort.patient[rows] + before
        place = np.full(len(rows), index)
        parts.append((cohort.features[rows], cohort.label[rows], patient, place))
        before += cohort.patients
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Split(training, HeldOut(*columns))


def federate(study: Study, cohorts: Mapping[str, Cohort]) -> list[Vector]:
    """Return the global model before the first and after every round, all sites present."""
    return _federated(study, cohorts)[0]


def own_models(study: Study, cohorts: Mapping[str, Cohort]) -> dict[str, Vector]:
    """Return the model that each site has after the last round: the global one or its own."""
    models, kept = _federated(study, cohorts)
    known = [Known(NOTHING, state) for state in kept]
    return {
        site: own_model(study, models[-1], one)
        for site, one in zip(study.file.site_names, known, strict=True)
    }


def _federated(study: Study, cohorts: Mapping[str, Cohort]) -> tuple[list[Vector], list[State]]:
    """Return all global models, and what each site keeps at the end."""
    network, names = build(study), study.file.site_names
    kept: list[State] = [NOTHING for _ in names]

    def train(request: Request, place: int) -> Vector:
        site, known = names[place], Known(request.shared, kept[place])
        delta = local_update(
            study, network, cohorts[site], site=site, start=request.start, known=known
        )
        kept[place] = next_state(study, start=request.start, known=known, delta=delta)
        return leaving(study, delta)

    def ask(request: Request) -> list[Vector]:
        return [train(request, place) for place in request.sites]

    start = initial_parameters(study)
    read = as_read(ask, study.file.training.encoding)
    return [start, *rounds(plan_of(study), start, read)], kept


def alone(study: Study, site: str, cohort: Cohort) -> list[Vector]:
    """Return what `federate` returns when one site trains without the others."""
    return federate(study_alone(study, site), {site: cohort})


def study_alone(study: Study, site: str) -> Study:
    """Return the same study, the same mechanism and so the same epsilon, with one site."""
    rounds = study.file.rounds.model_copy(update={"quorum": 1})
    file = study.file.model_copy(update={"rounds": rounds, "sites": (study.site(site),)})
    return Study(file=file, contract=study.contract)


def without_privacy(study: Study, *, rounds: int | None = None) -> Study:
    """Return the same study without clipping and noise, optionally over more rounds.

    Rounds are free without an epsilon; the comparison is fair when both use what they can.
    """
    privacy = NoPrivacy(mechanism="none", sampling_rate=study.file.privacy.sampling_rate)
    training = study.file.training.model_copy(
        update={"rounds": rounds or study.file.training.rounds}
    )
    file = study.file.model_copy(update={"privacy": privacy, "training": training})
    return Study(file=file, contract=study.contract)


def scores(study: Study, model: Vector, features: Features) -> Scores:
    """Return the first output for each row: of a binary label the logit."""
    first: Scores = outputs(study, model, features)[:, 0]
    return first


def outputs(study: Study, model: Vector, features: Features) -> Scores:
    """Return the model's outputs, "(rows, outputs)"."""
    import torch

    network = build(study)
    load_flat(network, model)
    with torch.no_grad():
        found: Scores = network(torch.from_numpy(np.asarray(features))).numpy()
    return found


def central_scores(split: Split) -> Scores:
    """Return the held-out scores of a logistic regression that saw all sites' training rows.

    What federation would be compared with if the rows could be brought together: scikit-learn's,
    nearly without regularisation (C = 100).
    """
    from sklearn.linear_model import LogisticRegression

    cohorts = list(split.training.values())
    features = np.concatenate([cohort.features for cohort in cohorts])
    label = np.concatenate([cohort.label for cohort in cohorts])
    fitted = LogisticRegression(C=100.0, max_iter=5000).fit(features, label)
    result: Scores = fitted.decision_function(split.held_out.features)
    return result


def _part(cohort: Cohort, keep: NDArray[np.bool_]) -> Cohort:
    _, patient = np.unique(cohort.patient[keep], return_inverse=True)
    return Cohort(
        cohort.features[np.flatnonzero(keep)], cohort.label[keep], patient.astype(np.int64)
    )
