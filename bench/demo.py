"""From one command to a model: the demo, and 20 private rounds on scikit-learn's cancer table.

The peer is Flower's deployment engine with an Opacus client doing the same single step a round;
four of its rounds are measured and extrapolated to twenty.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

from bench.harness import Figure, finish
from bench.stock_flower import DP_CLIENT, seconds_per_round
from larrey_lab.federation.paperwork import approve, propose
from larrey_lab.federation.processes import Federation
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.contract import Contract
from larrey_protocol.study import Study, StudyFile
from larrey_server.operator import Operator
from larrey_server.settings import load_operator

_SITES = ("north", "east", "south", "west")
_ROUNDS, _NOISE = 20, 20.0


def main() -> int:
    demos = [_demo() for _ in range(3)]
    tables = [_table() for _ in range(3)]
    flower = seconds_per_round(nodes=4, params=31, rounds=4, client=DP_CLIENT)
    total = statistics.median(total for total, _ in tables)
    stock = _ROUNDS * statistics.mean(flower)
    figures = [
        Figure("seconds_to_first_round", _median(demos, "seconds_to_first_round"), "s", "<=", 20),
        Figure("seconds_to_end", _median(demos, "seconds_total"), "s", "<=", 90),
        Figure("rounds_seconds", statistics.median(r for _, r in tables), "s", "<=", 4),
        Figure("total_seconds", total, "s", "<=", 30),
        Figure("flower_rounds_seconds", stock, "s", count="extrapolated from 4 measured rounds"),
        Figure("speedup_over_flower", stock / total, count="its rounds over our total"),
    ]
    notes = [
        "Medians of 3 runs. seconds_to_end is `larrey demo` with its 20 splits and its report.",
        "The table: 569 patients × 30 variables, 4 sites, 20 DP rounds; total includes starting",
        "five programs, proposing and approving.",
    ]
    return finish("demo", "make bench-demo", figures, notes=notes)


def _demo() -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=_disk()) as out:
        larrey = str(Path(sys.executable).parent / "larrey")
        command = [larrey, "demo", "--json", "--out", out]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=True)
        facts = json.loads(done.stdout)
        return {**facts, "seconds_total": time.perf_counter() - start}


def _table() -> tuple[float, float]:
    """Return the seconds in all and those from launch to the last round applied."""
    with tempfile.TemporaryDirectory(dir=_disk()) as name:
        folder, start = Path(name), time.perf_counter()
        study = _study()
        plans = [
            SitePlan(site, _rows(folder, i), "cancer", unit="pid") for i, site in enumerate(_SITES)
        ]
        with Federation(create_workspace(folder / "all", plans)) as federation:
            federation.start_coordinator()
            federation.start_sites()
            with Operator(load_operator(federation.workspace.operator)) as operator:
                digest = propose(federation.workspace, operator, study)
                approve(federation.workspace, study)
                launched = time.perf_counter()
                operator.launch(digest)
                outcome = [event.get("outcome") for event in operator.watch(digest)][-1]
                ended = time.perf_counter()
        if outcome != "COMPLETE":
            raise RuntimeError(f"the study ended {outcome}")
        return ended - start, ended - launched


def _study() -> Study:
    features, _ = load_breast_cancer(return_X_y=True)
    columns = [
        {
            "name": f"x{i}",
            "kind": "number",
            "range": [0, float(high)],
            "missing_max": 0,
            "steps": [{"step": "scale", "low": 0, "high": float(high), "from": "contract"}],
        }
        for i, high in enumerate(np.ceil(features.max(0) * 1.2))
    ]
    contract = {
        "contract": {"name": "cancer", "version": "1.0.0"},
        "unit": {"column": "pid"},
        "label": {"column": "y", "positive": ["0"], "negative": ["1"]},
        "columns": columns,
    }
    privacy = {"mechanism": "dp-sgd", "delta": 1e-5, "noise_multiplier": _NOISE, "clip": 1.0}
    privacy["epsilon"] = round(epsilon_pld(Mechanism(_NOISE, 1.0, _ROUNDS), 1e-5) + 0.01, 2)
    file = {
        "study": {
            "name": "cancer",
            "title": "Breast cancer",
            "question": "Is the mass malignant?",
            "purpose": "scientific-research",
            "permit": "test/1",
        },
        "model": {"name": "logistic"},
        "training": {"rounds": _ROUNDS, "spare_rounds": 0, "learning_rate": 2.0},
        "privacy": {**privacy, "sampling_rate": 1.0},
        "rounds": {"quorum": 4, "deadline_s": 60.0},
        "sites": [{"name": site, "patients": 140} for site in _SITES],
    }
    return Study(file=StudyFile.model_validate(file), contract=Contract.model_validate(contract))


def _rows(folder: Path, part: int) -> Path:
    features, label = load_breast_cancer(return_X_y=True)
    names = ",".join(f"x{i}" for i in range(features.shape[1]))
    rows = [
        f"p{i},{label[i]}," + ",".join(f"{value:g}" for value in features[i])
        for i in range(part, len(label), len(_SITES))
    ]
    path = folder / f"{_SITES[part]}.csv"
    path.write_text("\n".join([f"pid,y,{names}", *rows]) + "\n")
    return path


def _median(runs: list[dict[str, float]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def _disk() -> Path:
    """Return a folder on a real disk for state."""
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "bench-demo", ignore_errors=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return folder


if __name__ == "__main__":
    sys.exit(main())
