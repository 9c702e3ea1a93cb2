"""A model of the site's own: what it minimises, with which data, and that nothing else changes."""

from __future__ import annotations

import os

import numpy as np
import pytest

from larrey_client.data.cohort import load
from larrey_client.data.reading import Reading
from larrey_client.data.sources import connect
from larrey_client.frames import memory_file, seal
from larrey_client.networks import build
from larrey_client.personal import Personal, mean_loss, personal_model
from larrey_client.trainer_link import PersonalTask, TrainerLink
from larrey_client.trainer_process import Limits
from larrey_privacy.cohort import Cohort
from larrey_protocol.contract import Contract
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.strategies.test_of_study import make


@pytest.fixture
def study():
    return make(private=False)


@pytest.fixture
def cohort():
    draw = np.random.default_rng(3)
    x = draw.normal(size=(200, 20)).astype(np.float32)
    y = (x @ draw.normal(size=20) > 0).astype(np.float32)
    return Cohort(x, y, np.arange(200))


def trained(study, cohort, lambda_: float, steps: int = 400) -> np.ndarray:
    final = np.full(21, 0.25, np.float32)
    how = Personal(lambda_, steps, 0.3)
    return personal_model(study, build(study), cohort, site="alpha", final=final, how=how)


def test_without_a_pull_it_is_fine_tuning(study, cohort):
    network, final = build(study), np.full(21, 0.25, np.float32)
    before, after = (
        mean_loss(study, network, m, cohort) for m in (final, trained(study, cohort, 0.0))
    )
    assert after < 0.3 * before


def test_it_is_the_minimum_of_dittos_objective(study, cohort):
    """At the minimum the loss's gradient is lambda times the way back to the final model."""
    own, x = trained(study, cohort, 0.5), np.column_stack([cohort.features, np.ones(200)])
    gradient = x.T @ (1 / (1 + np.exp(-x @ own)) - cohort.label) / 200
    assert np.allclose(gradient, 0.5 * (0.25 - own), atol=1e-3)


def test_a_strong_pull_stays_at_the_final_model(study, cohort):
    far, near = (np.abs(trained(study, cohort, pull) - 0.25).max() for pull in (0.1, 3.0))
    assert near < 0.3 * far


def test_the_mean_loss_is_that_of_the_rows(study, cohort):
    own = trained(study, cohort, 0.1, steps=3)
    score = cohort.features @ own[:20] + own[20]
    wanted = np.mean(np.logaddexp(0, score) - cohort.label * score)
    assert mean_loss(study, build(study), own, cohort) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.system
def test_the_trainer_scores_both_models_on_rows_that_it_trained_no_model_on(
    make_study, table, tmp_path
):
    study = make_study()
    contract = study.contract.model_dump(mode="json", by_alias=True)
    contract["split"] = {"train": 0.5, "valid": 0.5}
    study = Study(file=study.file, contract=Contract.model_validate(contract))
    reading, layout = Reading(secret=b"s" * 32), model_layout(study)
    held = load(connect(table), study.contract, Reading(b"s" * 32, part="valid")).cohort
    final = np.full(layout.size, 0.5, np.float32)
    file = seal(memory_file("model", [pack(layout, final)]))
    link = TrainerLink.start(Limits(readable=(tmp_path,)))
    try:
        task = PersonalTask(study.digest, "alpha", 0.1, 20, 0.5)
        with pytest.raises(LarreyError) as early:
            link.personalise(task, file, timeout_s=60.0)
        assert early.value.code == "study-not-loaded"
        link.load(study, site="alpha", data=table, reading=reading)
        own, scores = link.personalise(task, file, timeout_s=60.0)
        data = os.pread(own, layout.nbytes, 0)
        os.close(own)
    finally:
        link.stop()
        os.close(file)
    model = np.frombuffer(data, "<f4", offset=len(layout.header))
    network = build(study)
    assert scores["rows"] == len(held.label) > 0
    assert scores["shared"] == pytest.approx(mean_loss(study, network, final, held))
    assert scores["own"] == pytest.approx(mean_loss(study, network, model, held))
