"""Seconds a round when training costs nothing: Larrey, stock Flower and bare gRPC in one run.

10k float32 parameters, real processes over mutual TLS, state on disk. The full path counts: gate,
ledger, trainer, receipt, upload, check, aggregation, journal. Stock Flower runs without TLS.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from bench import parts
from bench.bare_grpc import seconds_per_round as bare
from bench.harness import Figure, finish
from bench.noop_federation import fsync_seconds, make_study, run_noop
from bench.stock_flower import seconds_per_round as stock
from larrey_protocol.models import model_layout

_HIDDEN = (100, 95)  # with 4 inputs: 10,191 parameters


def main() -> int:
    study_4, study_10 = make_study(4, _HIDDEN, 60), make_study(10, _HIDDEN, 40)
    layout = model_layout(study_4)
    runs_4 = [run_noop(study_4) for _ in range(3)]
    run_10 = run_noop(study_10)
    bare_4 = statistics.median(bare(nodes=4, nbytes=layout.nbytes, rounds=200))
    flower_4 = statistics.median(stock(nodes=4, params=layout.size, rounds=4))
    flower_10 = statistics.median(stock(nodes=10, params=layout.size, rounds=3))
    seconds_4 = statistics.median(s for run in runs_4 for s in run.round_seconds)
    seconds_10 = statistics.median(run_10.round_seconds)
    cpu = statistics.median(run.cpu_seconds_per_message for run in runs_4)
    commits = statistics.median(run.commits_per_site_round for run in runs_4)
    rounds_4 = sum(len(run.round_seconds) for run in runs_4)
    figures = [
        Figure("speedup_over_flower_n4", flower_4 / seconds_4, "", ">=", 100),
        Figure("seconds_n4", seconds_4, "s", "<=", 0.06, count=f"median of {rounds_4}, 3 runs"),
        Figure("seconds_n10", seconds_10, "s", count=f"median of {len(run_10.round_seconds)}"),
        Figure("speedup_over_flower_n10", flower_10 / seconds_10),
        Figure("seconds_n4_over_bare_grpc", seconds_4 / bare_4),
        Figure("bare_grpc_seconds_n4", bare_4, "s", count="median of 200"),
        Figure("flower_seconds_n4", flower_4, "s", count="median of 4"),
        Figure("flower_seconds_n10", flower_10, "s", count="median of 3"),
        Figure("cpu_seconds_per_message", cpu, "s"),
        Figure("durable_commits_per_site_and_round", commits, "", "<=", 3.0),
        Figure("fsync_ms", 1e3 * fsync_seconds(Path("runs")), "ms"),
        *(Figure(name, 1e3 * seconds, "ms") for name, seconds in parts.prices().items()),
    ]
    notes = [
        "A message is one request to one site with its answer. Parts are medians of 200, each",
        "measured alone: the gate's decision, reserving in the ledger with its durable commit,",
        "committing the answer with its durable commit, checking an update of this size, signing",
        "and opening a receipt, and the coordinator's durable commit of a round.",
    ]
    return finish("round", "make bench-round", figures, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
