"""A study that also asks a listed app to evaluate: only the scalars it names leave."""

from __future__ import annotations

import json

import pytest

from tests.system.hospitals import HELD, SITES, Hospitals, make_study

pytestmark = pytest.mark.system


def test_named_metrics_of_an_evaluation_reach_the_consortium_and_nothing_else(
    hospitals: Hospitals,
) -> None:
    training = {**HELD, "calls": ["train", "evaluate"], "metrics": ["level"]}
    digest = hospitals.launch(make_study("judged", training=training))
    certificate = hospitals.finish(digest)
    status = hospitals.status(digest)
    missed = [cell for cell in certificate.matrix if cell.outcome != "contributed"]
    assert (certificate.outcome, missed) == ("COMPLETE", [])
    # Each applied round adds one to the zero model; round 3 evaluates what it started from.
    assert status["metrics"] == {"evaluate": {"level": 0.25}}
    assert "patients" not in json.dumps(status)
    for site in SITES:
        actions = [row["action"] for row in hospitals.audit(site) if row["study"] == digest]
        assert actions.count("round-reserved") == actions.count("metrics-released") == 3
