"""100 MB updates: how much memory the coordinator needs, and how long a round takes.

Memory: peak resident over idle of the coordinator and its worker, in model sizes, with 4 and with
16 real nodes. Seconds with 4 sites: the full path (gate, ledger, trainer, spool, receipt,
aggregation), and transport alone (sites that only fetch and send). Bare gRPC runs beside them.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.bare_grpc import seconds_per_round
from bench.harness import Figure, finish
from bench.noop_federation import fsync_seconds, make_study, run_noop
from larrey_lab.federation.paperwork import propose
from larrey_lab.federation.processes import Federation
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_server.operator import Operator
from larrey_server.settings import load_operator

_HIDDEN = (4096, 4096, 2000)  # with 4 inputs: 24,997,793 parameters, 100 MB
_ROUNDS, _RUNS = 6, 3


def main() -> int:
    four, sixteen = make_study(4, _HIDDEN, _ROUNDS), make_study(16, _HIDDEN, 2)
    model = model_layout(four).nbytes
    bare = statistics.median(seconds_per_round(nodes=4, nbytes=model, rounds=5))
    transports = [s for _ in range(_RUNS) for s in _transport_seconds(four)]
    transport = statistics.median(transports)
    smalls = [run_noop(four) for _ in range(_RUNS)]
    small = max(smalls, key=lambda run: run.peak_over_idle_bytes)
    large = run_noop(sixteen, idle_s=3.0)
    rounds = [s for run in smalls for s in run.round_seconds]
    full = statistics.median(rounds)
    figures = [
        Figure("coordinator_peak_model_sizes", small.peak_over_idle_bytes / model, "", "<=", 4.0),
        Figure(
            "coordinator_peak_model_sizes_n16", large.peak_over_idle_bytes / model, "", "<=", 5.0
        ),
        Figure(
            "transport_seconds",
            transport,
            "s",
            "<=",
            1.5,
            count=f"median of {len(transports)}, {_RUNS} runs",
        ),
        Figure(
            "full_path_seconds",
            full,
            "s",
            "<=",
            3.0,
            count=f"median of {len(rounds)}, {_RUNS} runs",
        ),
        Figure("full_path_seconds_n16", large.round_seconds[0], "s", count="1 round"),
        Figure("bare_grpc_seconds", bare, "s", count="median of 5"),
        Figure("transport_over_bare_grpc", transport / bare),
        Figure("cpu_seconds_per_message", small.cpu_seconds_per_message, "s"),
        Figure("durable_commits_per_site_and_round", small.commits_per_site_round, "", "<=", 3.0),
        Figure("fsync_ms", 1e3 * fsync_seconds(Path("runs")), "ms"),
    ]
    notes = [
        f"A model is {model / 1e6:.0f} MB of random float32. Stock Flower took 13.4 s and 24 model",
        "sizes on a machine of this size; that figure is not from this run.",
        f"Single transport rounds took {min(transports):.2f} to {max(transports):.2f} s.",
        "Peak memory is the largest of the runs.",
        "Transport: from the round's opening to the last update accepted.",
    ]
    return finish("memory", "make bench-memory", figures, notes=notes)


def _transport_seconds(study: Study) -> list[float]:
    folder = Path("runs") / "bench-transport"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    empty = folder / "none.csv"
    empty.write_text("")
    plans = [SitePlan(name, empty, "noop") for name in study.file.site_names]
    workspace = create_workspace(folder / "sites", plans)
    nodes: list[subprocess.Popen[str]] = []
    try:
        with Federation(workspace) as federation:
            federation.start_coordinator()
            with Operator(load_operator(workspace.operator)) as operator:
                digest = propose(workspace, operator, study)
                nodes = [_start_node(workspace.site(name)) for name in workspace.sites]
                for node in nodes:
                    if node.stdout is None or node.stdout.readline() != "ready\n":
                        raise RuntimeError("a transport node did not start")
                time.sleep(1.0)
                operator.launch(digest)
                return _opened_to_answered(operator, digest)
    finally:
        for node in nodes:
            node.kill()
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start_node(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.transport_node", str(config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _opened_to_answered(operator: Operator, digest: str) -> list[float]:
    opened: dict[int, float] = {}
    answered: dict[int, float] = {}
    outcome = ""
    for event in operator.watch(digest):
        if event.get("event") == "round-opened":
            opened[event["round"]] = event["at"]
        elif event.get("event") == "site-answered":
            answered[event["round"]] = event["at"]
        outcome = event.get("outcome") or outcome
    if outcome != "COMPLETE":
        raise RuntimeError(f"the transport run ended {outcome}")
    return [answered[number] - at for number, at in opened.items() if number > 1]


if __name__ == "__main__":
    sys.exit(main())
