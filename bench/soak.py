"""What five hundred rounds with random faults leave behind: nothing but the journal may grow.

    python -m bench.soak

Runs ``python tests/chaos soak``, which says what strikes whom, and holds what it found against what
was promised. Growth is from the fiftieth round on, between the medians of the first and the last
fifth of all looks at the very same processes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from bench.fragments import FOLDER, Facts, run
from bench.harness import RESULTS, Comparison, Figure, finish

__all__ = ["figures", "main"]

_LIMIT_S = 3600.0
_ROUNDS = 500
_HALVES = "second half by first"
_NOTES = [
    "Memory: what no other process shares; a node is its agent and its trainer. The coordinator",
    "is killed in the first thirtieth of the rounds alone, the two nodes looked at never: they",
    "live to the end. All else is killed throughout, all are stalled. Spools: what is dropped once",
    "nobody may ask again; the coordinator's model of each round and a site's copies of what left",
    "are kept. A journal is a database with its log: it grows by as many bytes each round.",
]


def figures(facts: Facts) -> list[Figure]:
    """Return the figures of soak.json."""
    growth = [facts[f"memory_growth_ratio_{name}"] for name in ("coordinator", "node")]
    spools = [facts[f"spool_most_models_{name}"] for name in ("coordinator", "node")]
    sites = facts["sites"]
    looks = f"{min(facts['looks'].values())} looks"
    rows: list[tuple[str, float, str, Comparison, float | None, str]] = [
        ("rounds", facts["rounds"], "", ">=", _ROUNDS, ""),
        ("faults_injected", facts["faults_injected"], "", "", None, _kinds(facts["faults"])),
        ("memory_growth_ratio", max(growth), "", "<=", 1.05, looks),
        ("memory_growth_ratio_coordinator", growth[0], "", "<=", 1.05, looks),
        ("memory_growth_ratio_node", growth[1], "", "<=", 1.05, looks),
        ("memory_growth_ratio_agent", facts["memory_growth_ratio_agent"], "", "", None, "alone"),
        ("open_files_growth", facts["files_growth"], "", "<=", 0, looks),
        ("threads_growth", facts["threads_growth"], "", "<=", 2, "pools start what they need"),
        ("spool_most_models_coordinator", spools[0], "", "<=", 2 * sites + 2, "models' bytes"),
        ("spool_most_models_node", spools[1], "", "<=", 3.5, "models' bytes"),
        ("journal_slope_ratio", facts["journal_slope_ratio"], "", "<=", 1.25, _HALVES),
        ("round_seconds", facts["round_seconds"], "s", "", None, "median"),
        ("round_seconds_ratio", facts["round_seconds_ratio"], "", "<=", 1.25, _HALVES),
        ("seconds", facts["seconds"], "s", "", None, ""),
    ]
    per_round = facts["journal_bytes_per_round"]
    nodes = [value for name, value in per_round.items() if name != "coordinator"]
    rows.append(("journal_bytes_a_round", per_round["coordinator"], "B", "", None, "coordinator"))
    rows.append(("journal_bytes_a_round_node", max(nodes), "B", "", None, "larger of two nodes"))
    return [
        Figure(name, float(value), unit, sign, target, count=count)
        for name, value, unit, sign, target, count in rows
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the figures, and write soak.json; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--sites", type=int, default=8)
    options = parser.parse_args(arguments)
    size = ["--rounds", str(options.rounds), "--sites", str(options.sites)]
    fragment = run("soak", size, _LIMIT_S)
    if fragment.status or not fragment.facts:
        print(f"failed with status {fragment.status} before it had figures", file=sys.stderr)
        return 1
    folder = RESULTS if options.rounds >= _ROUNDS else FOLDER
    found = figures(fragment.facts)
    return finish("soak", "make soak", found, notes=_NOTES, folder=folder)


def _kinds(faults: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # `run` ends its part
    sys.exit(main())
