"""Studies of composed algorithms over real processes are what the pure functions say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from larrey_client.app import local_update
from larrey_client.data.cohort import load_cohort
from larrey_client.networks import build
from larrey_client.remembering import NOTHING, Known, leaving, next_state
from larrey_client.settings import load_settings
from larrey_protocol.models import initial_parameters
from larrey_protocol.study import Study
from larrey_strategies.combining import aggregate
from larrey_strategies.of_study import algorithm_of, facts_of
from tests.system.hospitals import SITES, Hospitals, make_study

pytestmark = pytest.mark.system
TRAINING = {"rounds": 4, "learning_rate": 2.0, "local_steps": 3}
STUDIES: dict[str, dict[str, Any]] = {
    "corrected": {"strategy": "scaffold", "parameters": {"eta_g": 0.7}, "momentum": 0.5},
    "shifted": {"strategy": "feddyn", "parameters": {"alpha": 0.3}, "encoding": "float16"},
    "personal": {"strategy": "mr-mtl", "parameters": {"lambda": 0.2}, "encoding": "float16"},
    "in-part": {
        "strategy": "scaffold",
        "momentum": 0.3,
        "local": ["*.weight"],
        "encoding": "int8",
    },
    "composed": {
        "strategy": "fedyogi",
        "parameters": {"eta": 0.1, "mu": 0.2},
        "objective": "fedprox",
        "aggregator": "median",
    },
}


def expected(
    study: Study, hospitals: Hospitals, remembers: bool = True
) -> list[NDArray[np.float32]]:
    """Return the model before the first and after each round, by the pure functions alone."""
    algorithm, network = algorithm_of(study), build(study)
    cohorts = {site: load_cohort(hospitals.data(site), study.contract) for site in SITES}
    params = initial_parameters(study)
    state, kept = algorithm.init(params), dict.fromkeys(SITES, NOTHING)
    models = [params]
    for _ in range(study.file.training.rounds):
        shared = {name: state[name] for name in algorithm.shared}
        updates = []
        for site in SITES:
            known = Known(shared, kept[site])
            delta = local_update(
                study, network, cohorts[site], site=site, start=params, known=known
            )
            if remembers:
                kept[site] = next_state(study, start=params, known=known, delta=delta)
            updates.append(leaving(study, delta))
        mean = aggregate(algorithm.aggregator, updates, study.weights)
        params, state = algorithm.step(params, state, mean, facts_of(study))
        models.append(params)
    return models


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_gives_the_models_of_the_pure_functions(
    name: str, hospitals: Hospitals, tmp_path: Path
) -> None:
    rounds = {"quorum": len(SITES), "deadline_s": 120.0}
    study = make_study(name, training=TRAINING | STUDIES[name], rounds=rounds)
    certificate = hospitals.finish(hospitals.launch(study))
    assert certificate.outcome == "COMPLETE"
    rounding = {"float16": 1e-3, "int8": 0.05}.get(study.file.training.encoding, 1e-5)
    for number, wanted in enumerate(expected(study, hospitals)):
        found = hospitals.model(study, number, tmp_path)
        np.testing.assert_allclose(found, wanted, rtol=rounding, atol=rounding)
    folder = load_settings(hospitals.config("alpha")).site.state / "states"
    kept = [path for path in folder.rglob("*") if path.is_file() and study.digest[7:] in str(path)]
    assert bool(kept) == (name != "composed")  # only these objectives remember


def test_sites_that_forget_give_another_model(hospitals: Hospitals) -> None:
    """What the tests above compare tells whether the sites remembered."""
    study = make_study("corrected", training=TRAINING | STUDIES["corrected"])
    remembering, forgetting = expected(study, hospitals)[2], expected(study, hospitals, False)[2]
    assert float(np.abs(remembering - forgetting).max()) > 0.01
