from __future__ import annotations

from pathlib import Path

import pytest

from larrey_lab.heart import read_heart
from larrey_lab.rehearsal import cohorts_of
from larrey_protocol.study import load_study

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def heart():
    return read_heart()


@pytest.fixture(scope="session")
def study():
    return load_study(EXAMPLES / "heart" / "study.toml")


@pytest.fixture(scope="session")
def cohorts(heart, study):
    return cohorts_of(heart, study)
