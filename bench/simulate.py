"""Simulated sites a round: our local engine beside pfl-research and Flower's simulation on Ray.

All three run `bench.tiny_job` on the same rows, one BLAS thread each, one after the other in this
run. Ours is the shipped path: a Flower ClientApp through `LocalSites` and `rounds`, updates in the
form that travels. pfl lives in ``.tools/pfl`` (`make pfl`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from bench import tiny_job
from bench.harness import Figure, finish
from larrey_client.arrays import flat_of, record_of
from larrey_lab.simulation.local import Letters, LocalSites
from larrey_lab.simulation.ray import on_ray
from larrey_lab.simulation.rounds import Ask, Plan, rounds
from larrey_protocol.tensors import TensorLayout
from larrey_strategies.contract import RoundFacts
from larrey_strategies.registry import AlgorithmWords, make_algorithm

_ROOT = Path(__file__).resolve().parents[1]
_PFL = _ROOT / ".tools" / "pfl" / "bin" / "python"
_PUBLISHED_PFL_S = 0.010  # 100 users a round, on another machine; context, never a ratio
_TIMES = 3  # ours and pfl's in turn
_ROUNDS = {100: 12, 1000: 5}
_LAYOUT = TensorLayout((("flat", (tiny_job.PARAMETERS,)),))


def app() -> ClientApp:
    """Return the tiny job as a Flower app, with the arrays of Larrey's own."""
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        model = flat_of(message.content["arrays"], _LAYOUT)
        site = int(message.content["config"]["site"]) % tiny_job.SITES_WITH_ROWS
        delta = tiny_job.update(model, *tiny_job.rows_of(site))
        content = RecordDict({"arrays": record_of(_LAYOUT, delta)})
        return Message(content, reply_to=message)

    return client


def letters(sites: int) -> Letters:
    return Letters(_LAYOUT, tuple(str(site) for site in range(sites)))


def timed(ask: Ask, sites: int, count: int) -> list[float]:
    """Return the seconds of each round."""
    plan = Plan(make_algorithm(AlgorithmWords()), (1.0,) * sites, RoundFacts(), count)
    start = np.zeros(tiny_job.PARAMETERS, np.float32)
    seconds, models, since = [], [start], time.perf_counter()
    for model in rounds(plan, start, ask):
        models.append(model)
        now = time.perf_counter()
        seconds.append(now - since)
        since = now
    assert np.abs(models[-1]).max() > 0
    return seconds


def ours(sites: int) -> float:
    ask = LocalSites(app(), letters(sites))
    return tiny_job.median_seconds(timed(ask, sites, _ROUNDS[sites]))


def flower(sites: int, count: int = 5) -> float:
    found: list[float] = []
    on_ray(app(), letters(sites), lambda ask: found.extend(timed(ask, sites, count)))
    return tiny_job.median_seconds(found)


def pfl(sites: int) -> float:
    command = [str(_PFL), "pfl_peer.py", str(sites), str(_ROUNDS[sites])]
    done = subprocess.run(
        command, cwd=_ROOT / "bench", check=True, capture_output=True, text=True, timeout=120
    )
    return tiny_job.median_seconds(json.loads(done.stdout))


def main() -> int:
    has_pfl = _PFL.exists()
    pairs = [(ours(100), pfl(100) if has_pfl else float("nan")) for _ in range(_TIMES)]
    mine = float(np.median([pair[0] for pair in pairs]))
    thousand, ray = ours(1000), flower(100)
    figures = [
        Figure("seconds_100_sites", mine, "s", count=f"median of {_TIMES}"),
        Figure("seconds_1000_sites", thousand, "s", count="a round"),
        Figure("flower_simulation_seconds_100_sites", ray, "s", count="a round, Ray"),
        Figure("speedup_over_flower_simulation_100_sites", ray / mine, "×", ">=", 10),
    ]
    notes = [
        "Logistic regression in numpy, 10,000 parameters, 8 rows a site, one step; the same",
        "functions and rows in all three, one BLAS thread a process, first round of each left out.",
        "Flower: its simulation engine on Ray, all cores, our round loop and aggregation.",
    ]
    if has_pfl:
        peer = float(np.median([pair[1] for pair in pairs]))
        ratio = float(np.median([a / b for a, b in pairs]))
        figures.insert(
            0, Figure("over_pfl_100_sites", ratio, "×", "<=", 2, count=f"{_TIMES} pairs")
        )
        figures.insert(3, Figure("pfl_seconds_100_sites", peer, "s", count=f"median of {_TIMES}"))
        figures.insert(4, Figure("pfl_seconds_1000_sites", pfl(1000), "s", count="a round"))
    else:
        notes.append(
            "pfl 0.6 could not be installed here, so there is no ratio to it. For context:"
        )
        notes.append(f"{_PUBLISHED_PFL_S} s a round of 100 users was measured on another machine.")
    return finish("simulate", "make bench-simulate", figures, notes=notes)


if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("run: make bench-simulate (it sets OMP_NUM_THREADS=1)")
    sys.exit(main())
