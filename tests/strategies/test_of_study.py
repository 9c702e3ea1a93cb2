"""A study's algorithm as a whole: what is refused, and how large an honest update may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout, request_layout
from larrey_protocol.norms import NO_DRIFT, Drift, norm_bound
from larrey_protocol.study import DpSgd, Study
from larrey_strategies.contract import LocalRound
from larrey_strategies.drift import update_bound
from larrey_strategies.of_study import algorithm_of, facts_of, require_algorithm, site_vectors
from tests.strategies.algorithms import PARAMETERS

DP = {
    "mechanism": "dp-sgd", "epsilon": 5.0, "delta": 1e-5, "noise_multiplier": 0.5, "clip": 2.0,
    "sampling_rate": 1.0,
}  # fmt: skip


def make(*, quorum: int = 2, app: str = "", private: bool = True, **training: Any) -> Study:
    number = {"kind": "number", "range": [0, 1], "missing_max": 0.0}
    file: dict[str, Any] = {
        "study": {"name": "toy", "title": "A toy", "question": "Does it work?",
                  "purpose": "statistics", "permit": "test/1"},
        "model": {"name": "logistic"},
        "training": {"rounds": 30, "learning_rate": 0.4, "local_steps": 4, **training},
        "privacy": DP if private and not app else {"mechanism": "none"},
        "rounds": {"quorum": quorum},
        "sites": [{"name": "alpha", "patients": 40}, {"name": "beta", "patients": 25}],
    }  # fmt: skip
    if app:
        file["training"]["app"] = app
    contract = {
        "contract": {"name": "toy", "version": "1.0.0"},
        "unit": {"column": "pid"},
        "label": {"column": "y", "positive": ["1"], "negative": ["0"]},
        "columns": [{**number, "name": f"x{i}"} for i in range(20)],
    }
    return Study.model_validate({"file": file, "contract": contract})


ALGORITHMS: list[dict[str, Any]] = [
    {"strategy": "fedavg"},
    {"strategy": "fedavg", "momentum": 0.9},
    {"strategy": "fedprox", "parameters": {"mu": 1.5}},
    {"strategy": "fedprox", "parameters": {"mu": 1.5}, "momentum": 0.5},
    {"strategy": "scaffold"},
    {"strategy": "scaffold", "momentum": 0.8, "encoding": "int8"},
    {"strategy": "feddyn", "parameters": {"alpha": 0.3}},
    {"strategy": "feddyn", "parameters": {"alpha": 2.0}, "momentum": 0.5},
    {"strategy": "mr-mtl", "parameters": {"lambda": 0.1}},
    {"strategy": "mr-mtl", "parameters": {"lambda": 0.5}, "momentum": 0.3, "encoding": "int8"},
]


@pytest.mark.parametrize("words", ALGORITHMS)
def test_no_honest_update_is_over_the_bound(words: dict[str, Any]) -> None:
    """Every patient's gradient is as long as the clip allows and turns at the worst moments."""
    study = make(**words)
    algorithm, facts = algorithm_of(study), facts_of(study)
    privacy, training = study.file.privacy, study.file.training
    assert isinstance(privacy, DpSgd)
    draw, size = np.random.default_rng(7), model_layout(study).size
    params = np.zeros(size, np.float32)
    state, kept = algorithm.init(params), {}
    ways = {"alpha": draw.normal(size=size), "beta": draw.normal(size=size)}
    largest = 0.0
    for number in range(training.rounds):
        updates = []
        for site, way in ways.items():
            mine = kept.setdefault(site, algorithm.site_init(params))
            shared = {name: state[name] for name in algorithm.shared}
            begin = algorithm.begin(params, mine)
            now, velocity = begin.astype(np.float64), np.zeros(size)
            sign = 1 if site == "alpha" or number % 2 else -1
            for _ in range(training.local_steps):
                noise = privacy.noise_multiplier * privacy.clip * draw.normal(size=size)
                signal = sign * privacy.clip * way / np.linalg.norm(way)
                gradient = signal + noise / study.expected_batch(site)
                added = algorithm.correction(now.astype(np.float32), params, mine, shared)
                velocity = training.momentum * velocity + gradient
                velocity += 0 if added is None else added
                now = now - training.learning_rate * velocity
            delta = (now - begin).astype(np.float32)
            largest = max(largest, float(np.linalg.norm(delta)) / update_bound(study, site))
            kept[site] = algorithm.site_step(mine, LocalRound(params, delta, shared, facts))
            updates.append(delta)
        mean = (0.6 * updates[0] + 0.4 * updates[1]).astype(np.float32)
        params, state = algorithm.step(params, state, mean, facts)
    # The other end: it says something. MR-MTL's leaves room for who comes back in the last round.
    assert (0.002 if words["strategy"] == "mr-mtl" else 0.02) < largest < 1


def test_a_pull_of_zero_changes_no_bound() -> None:
    study = make(momentum=0.3)
    assert norm_bound(study, "beta", drift=Drift(0.0)) == norm_bound(study, "beta", drift=NO_DRIFT)
    assert norm_bound(study, "beta", drift=Drift(1e-9)) == pytest.approx(norm_bound(study, "beta"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ({"strategy": "fedprox", "parameters": {"mu": 1e300}}, "update-unbounded"),
        ({"strategy": "scaffold", "aggregator": "median"}, "objective-needs-mean"),
        ({"strategy": "fedavg", "objective": "scaffold"}, "parts-mismatch"),
        ({"strategy": "median"}, "quorum-too-small"),
        ({"strategy": "fedprox", "parameters": {"mu": 1.0}, "app": "theirs"}, "app-trains-itself"),
        ({"strategy": "fedavk"}, "unknown-strategy"),
    ],
)
def test_what_cannot_be_run_as_it_says_is_refused(words: dict[str, Any], code: str) -> None:
    with pytest.raises(LarreyError) as refused:
        require_algorithm(make(**words))
    assert refused.value.code == code
    assert refused.value.next_step


@pytest.mark.parametrize("words", ALGORITHMS)
def test_what_can_be_run_is_not(words: dict[str, Any]) -> None:
    require_algorithm(make(**words))


def test_only_what_travels_is_in_the_request() -> None:
    for strategy, names, kept in (
        ("fedavg", (), ()),
        ("fedadam", (), ()),
        ("scaffold", ("shared.c",), ("c_i",)),
        ("feddyn", (), ("g_i",)),
        ("mr-mtl", (), ("w_k",)),
    ):
        parameters = PARAMETERS.get(strategy, {})
        study = make(strategy=strategy, parameters=parameters)
        algorithm, model = algorithm_of(study), model_layout(study)
        layout = request_layout(study, algorithm.shared)
        assert layout.entries == (*model.entries, *((name, (model.size,)) for name in names))
        assert site_vectors(algorithm) == kept
        assert (layout.header == model.header) == (not names)
