"""A small study, its table, and a trainer on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from larrey_client.trainer_link import TrainerLink
from larrey_client.trainer_process import Limits
from larrey_protocol.contract import Contract
from larrey_protocol.study import Study

DP = {
    "mechanism": "dp-sgd",
    "epsilon": 1.0,
    "delta": 1e-5,
    "noise_multiplier": 9.0,
    "clip": 0.5,
    "sampling_rate": 1.0,
}
CONTRACT: dict[str, Any] = {
    "contract": {"name": "toy", "version": "1.0.0"},
    "unit": {"column": "pid", "min_count": 4},
    "label": {"column": "sick", "positive": ["1"], "negative": ["0"]},
    "columns": [
        {
            "name": "age",
            "kind": "number",
            "range": [0, 120],
            "missing_max": 0.5,
            "missing_values": ["NA", "-1"],
            "steps": [
                {"step": "impute", "value": 50, "indicator": True, "from": "contract"},
                {"step": "clip", "low": 20, "high": 90, "from": "contract"},
                {"step": "scale", "low": 20, "high": 80, "from": "contract"},
            ],
        },
        {
            "name": "cp",
            "kind": "category",
            "values": ["typical", "none"],
            "missing_max": 0.5,
            "steps": [{"step": "one-hot"}],
        },
    ],
}


@pytest.fixture
def contract() -> Contract:
    return Contract.model_validate(CONTRACT)


@pytest.fixture
def make_study() -> Callable[..., Study]:
    def make(privacy: dict[str, Any] | None = None, model: Any = None, **training: Any) -> Study:
        file = {
            "study": {
                "name": "toy",
                "title": "A toy",
                "question": "Does it work?",
                "purpose": "scientific-research",
                "permit": "test/1",
            },
            "model": model or {"name": "logistic"},
            "training": {"rounds": 2, "learning_rate": 0.7, **training},
            "privacy": privacy or {"mechanism": "none"},
            "rounds": {"quorum": 1},
            "sites": [{"name": "alpha", "patients": 12}],
        }
        return Study.model_validate({"file": file, "contract": CONTRACT})

    return make


@pytest.fixture
def private() -> dict[str, Any]:
    return DP


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a CSV of 12 patients with a column more than the contract names."""
    random = np.random.default_rng(3)
    rows = [
        f"p{i},{random.integers(20, 90)},{('typical', 'none')[i % 2]},{i % 3 % 2},secret"
        for i in range(12)
    ]
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(["pid,age,cp,sick,extra", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a trainer import the folder of standard apps; return the module's name."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "apps"))
    return "standard_apps"


@pytest.fixture
def cold_link(tmp_path: Path) -> Iterator[TrainerLink]:
    """Give a trainer that imports torch only when it must."""
    link = TrainerLink.start(Limits(readable=(tmp_path,)), warm=False)
    yield link
    link.stop()
