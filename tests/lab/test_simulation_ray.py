"""The command on Flower's simulation engine; Ray leaves nothing behind but with its process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "examples" / "heart" / "study.toml"
has_ray = importlib.util.find_spec("ray") is not None


@pytest.mark.system
@pytest.mark.skipif(not has_ray, reason="needs Ray: run `make simulation`")
def test_the_same_study_is_simulated_on_ray(tmp_path):
    larrey = Path(sys.executable).with_name("larrey")
    words = ["--data", "heart", "--engine", "ray", "--sites", "2", "--out", str(tmp_path), "--json"]
    command = [str(larrey), "study", "simulate", str(STUDY), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["engine"] == "ray"
    assert len(facts["score_by_round"]) == 6
    assert facts["score"]["value"] > 0.8
