"""The rehearsal is the study's own arithmetic, without servers."""

from __future__ import annotations

import numpy as np
import pytest

from larrey_lab.evaluation import auc
from larrey_lab.rehearsal import (
    alone,
    central_scores,
    federate,
    scores,
    split_cohorts,
    study_alone,
    without_privacy,
)
from larrey_lab.tables import split_rows
from larrey_protocol.models import initial_parameters


@pytest.fixture(scope="module")
def split(cohorts, study):
    return split_cohorts(cohorts, study.contract.label, held_out=0.3, seed=3)


def test_the_same_patients_are_held_out_of_tables_and_of_cohorts(heart, study, split):
    for index, site in enumerate(study.file.site_names):
        training, held = split_rows(heart, site, held_out=0.3, seed=3)
        labels = [float(row["disease"]) for row in held]
        assert split.held_out.label[split.held_out.site == index].tolist() == labels
        assert split.training[site].patients == len(training)


def test_held_out_patients_of_different_sites_have_different_numbers(split):
    held = split.held_out
    assert len(np.unique(held.patient)) == len(held.label)  # one row a patient in this table


def test_federated_descent_without_privacy_is_that_of_the_formula(study, split):
    models = federate(without_privacy(study), split.training)
    assert len(models) == study.file.training.rounds + 1
    w = initial_parameters(study).astype(np.float64)
    for model in models[1:]:
        w = w - study.file.training.learning_rate * sum(
            weight * mean_gradient(cohort, w)
            for weight, cohort in zip(study.weights, split.training.values(), strict=True)
        )
        assert np.allclose(model, w, atol=1e-5)


def mean_gradient(cohort, w):
    rows = np.column_stack([cohort.features, np.ones(len(cohort.label))])
    residual = 1 / (1 + np.exp(-rows @ w)) - cohort.label
    return rows.T @ residual / len(residual)


def test_many_rounds_without_privacy_come_close_to_the_central_regression(study, split):
    model = federate(without_privacy(study, rounds=60), split.training)[-1]
    label = split.held_out.label
    federated = auc(label, scores(study, model, split.held_out.features))
    assert abs(federated - auc(label, central_scores(split))) < 0.01


def test_two_private_trainings_differ_by_their_noise(study, split):
    first, second = (federate(study, split.training) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert not np.array_equal(first[1], second[1])


def test_first_private_update_has_the_noise_the_study_says(study, split):
    """The spread over 60 trainings of each coordinate, 31 of them, within 4 standard errors."""
    runs = np.array([federate(one_round(study), split.training)[1] for _ in range(60)])
    privacy, training = study.file.privacy, study.file.training
    batches = [study.expected_batch(site) for site in study.file.site_names]
    of_one = privacy.noise_multiplier * privacy.clip * training.learning_rate
    expected = np.linalg.norm([w * of_one / b for w, b in zip(study.weights, batches, strict=True)])
    spread = np.sqrt(runs.var(axis=0, ddof=1).mean())
    assert spread == pytest.approx(expected, rel=4 / np.sqrt(2 * 59 * runs.shape[1]))


def one_round(study):
    training = study.file.training.model_copy(update={"rounds": 1})
    return study.model_copy(update={"file": study.file.model_copy(update={"training": training})})


def test_a_site_alone_runs_the_same_mechanism(study):
    single = study_alone(study, "va")
    assert single.file.privacy == study.file.privacy
    assert single.file.training == study.file.training
    assert single.file.site_names == ("va",)
    assert single.digest != study.digest


def test_a_site_alone_without_privacy_is_its_own_federation(study, split):
    plain = without_privacy(study)
    model = alone(plain, "hungary", split.training["hungary"])[1]
    step = study.file.training.learning_rate * mean_gradient(
        split.training["hungary"], initial_parameters(study).astype(np.float64)
    )
    assert np.allclose(model, -step, atol=1e-5)
