"""A small study for tests; `study(...)` replaces single values by dotted key."""

from __future__ import annotations

from typing import Any

from larrey_protocol.contract import Contract
from larrey_protocol.study import Study, StudyFile

CONTRACT: dict[str, Any] = {
    "contract": {"name": "tiny", "version": "1.0.0"},
    "unit": {"name": "patient", "column": "pid", "max_rows": 1, "min_count": 2},
    "label": {"column": "y", "positive": ["1"], "negative": ["0"]},
    "columns": [
        {
            "name": "age",
            "kind": "number",
            "unit": "a",
            "range": [0, 120],
            "steps": [
                {"step": "impute", "value": 50, "from": "contract", "indicator": True},
                {"step": "scale", "low": 0, "high": 100, "from": "contract"},
            ],
        },
        {
            "name": "sex",
            "kind": "category",
            "values": ["F", "M"],
            "steps": [{"step": "one-hot"}],
        },
    ],
}

STUDY: dict[str, Any] = {
    "study": {
        "name": "tiny",
        "title": "A tiny study",
        "question": "Does it run?",
        "purpose": "scientific-research",
        "permit": "test/1",
    },
    "model": {"name": "logistic"},
    "training": {"rounds": 3, "spare_rounds": 1, "learning_rate": 1.0},
    "privacy": {
        "mechanism": "dp-sgd",
        "epsilon": 3.0,
        "delta": 1e-5,
        "noise_multiplier": 4.0,
        "clip": 0.5,
        "sampling_rate": 1.0,
    },
    "rounds": {"quorum": 2, "deadline_s": 30.0},
    "sites": [{"name": "alpha", "patients": 100}, {"name": "beta", "patients": 300}],
}


def study(**changes: Any) -> Study:
    """Return the tiny study with values replaced; ``training__rounds=5`` sets training.rounds."""
    file = {k: (dict(v) if isinstance(v, dict) else v) for k, v in STUDY.items()}
    for path, value in changes.items():
        table, _, key = path.partition("__")
        if key:
            file[table][key] = value
        else:
            file[table] = value
    return Study(file=StudyFile.model_validate(file), contract=Contract.model_validate(CONTRACT))
