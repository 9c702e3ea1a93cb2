"""The benches' files have the format that others read."""

from __future__ import annotations

import json
import platform

import pytest

from bench import harness
from bench.harness import Figure, finish, machine


@pytest.mark.parametrize(
    ("value", "comparison", "target", "holds"),
    [
        (1.0, "<=", 1.0, True),
        (1.1, "<=", 1.0, False),
        (0.9, ">=", 1.0, False),
        (1.0, "", None, None),
        (float("nan"), "<=", 1.0, False),
    ],
)
def test_a_figure_holds_when_it_meets_its_target(value, comparison, target, holds):
    assert Figure("x", value, "s", comparison, target).holds is holds


def test_a_missed_target_is_written_and_told_by_the_exit_status(tmp_path, capsys):
    figures = [Figure("fast", 2.0, "s", "<=", 1.0), Figure("share", 0.5, count="2 of 4 sites")]
    assert finish("trial", "python -m bench.trial", figures, folder=tmp_path) == 1
    document = json.loads((tmp_path / "trial.json").read_text())
    assert set(document) >= {"command", "date", "machine", "figures"}
    assert document["figures"][0] == {
        "name": "fast",
        "value": 2.0,
        "unit": "s",
        "comparison": "<=",
        "target": 1.0,
        "holds": False,
    }
    assert document["figures"][1]["count"] == "2 of 4 sites"
    assert "NO" in capsys.readouterr().out


def test_all_targets_met_is_status_zero(tmp_path):
    assert finish("trial", "x", [Figure("fast", 0.5, "s", "<=", 1.0)], folder=tmp_path) == 0


def test_the_machine_is_described_without_its_name():
    assert platform.node() not in json.dumps(machine())
    assert machine()["cores"] >= 1


def test_results_lie_beside_the_benches():
    assert harness.RESULTS.parent.name == "bench"
