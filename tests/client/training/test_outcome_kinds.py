"""A trainer reads and trains every kind of outcome: one step is the gradient of a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from larrey_client.data.cohort import load_cohort
from larrey_client.trainer_link import TrainerLink
from larrey_client.trainer_process import Limits
from larrey_protocol.contract import Contract
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from tests.client.training.conftest import CONTRACT, DP
from tests.client.training.test_trainer import _train

Pull = Callable[[np.ndarray, float], np.ndarray]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def of_class(z: np.ndarray, y: float) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum() - (np.arange(len(z)) == y)


def of_number(z: np.ndarray, y: float) -> np.ndarray:
    return z - y


def of_time(z: np.ndarray, y: float) -> np.ndarray:
    lived, event = divmod(int(y), 2)
    place = np.arange(len(z))
    return np.where(place < lived + event, sigmoid(z), 0) - ((place == lived) & (event > 0))


KINDS: dict[str, tuple[dict[str, Any], Pull]] = {
    "class": (
        {
            "column": "stage",
            "classes": [{"name": n, "texts": [n]} for n in ("I", "II", "III")],
        },
        of_class,
    ),
    "number": ({"column": "stay", "range": [0, 30], "center": 10, "scale": 5}, of_number),
    "survival": (
        {
            "time": "days",
            "event": "died",
            "events": ["1"],
            "censored": ["0"],
            "edges": [10, 20, 40],
        },
        of_time,
    ),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    random = np.random.default_rng(3)
    rows = [
        f"p{i},{random.integers(20, 90)},{('typical', 'none')[i % 2]},"
        f"{('I', 'II', 'III')[i % 3]},{7 * i % 31},{5 * i % 53},{i % 2}"
        for i in range(12)
    ]
    path = tmp_path_factory.mktemp("outcomes") / "cohort.csv"
    path.write_text("\n".join(["pid,age,cp,stage,stay,days,died", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def own_link(tmp_path_factory):
    link = TrainerLink.start(Limits(readable=(tmp_path_factory.getbasetemp(),)))
    yield link
    link.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_each_kind_is_the_gradient_of_a_plain_loop(make_study, table, own_link, kind):
    label, pull = KINDS[kind]
    contract = Contract.model_validate({**CONTRACT, "label": {"kind": kind, **label}})
    study = Study(file=make_study().file, contract=contract)
    layout, cohort = model_layout(study), load_cohort(table, contract)
    start = np.linspace(-0.3, 0.4, layout.size).astype(np.float32)
    weight, bias = layout.views(start)
    gradients = [
        np.concatenate([np.outer(d, x).ravel(), d])
        for x, y in zip(cohort.features.astype(float), cohort.label, strict=True)
        for d in [pull(weight @ x + bias, y)]
    ]
    assert own_link.load(study, site="alpha", data=table).units == 12
    np.testing.assert_allclose(
        _train(own_link, study, start), -0.7 * np.mean(gradients, axis=0), atol=3e-6
    )
    private = Study(file=make_study(DP).file, contract=contract)
    own_link.load(private, site="alpha", data=table)
    assert np.isfinite(_train(own_link, private, start)).all()
