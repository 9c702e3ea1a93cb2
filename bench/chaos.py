"""Every fault that tests/chaos knows, one part after the other, and what was lost.

    python -m bench.chaos [--part NAME …] [--quick] [--keep]

The parts are those of ``python tests/chaos``; each checks what must hold and fails otherwise. Here
their figures are put together. ``--quick`` tries whether all parts run, with few faults each; it
and a choice of parts write below runs/chaos, not into bench/results. ``--keep`` takes the figures
of parts that succeeded before from there and runs the others: an hour that was cut goes on.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.fragments import FOLDER, Facts, Fragment, kept, parts, run
from bench.harness import RESULTS, Comparison, Figure, finish

__all__ = ["Tally", "figures", "main", "tallies"]

_ELSEWHERE = {"soak"}  # has a command of its own
_WHOLE_S = 3600.0
_QUICK = {
    "kills": ["--study", "seeded", "--label", "agent.reserved", "--label", "coordinator.task-sent"],
    "storm": ["--count", "3"],
    "storm_transfer": ["--megabytes", "10", "--megabits", "20"],
    "field": ["--id", "F8"],
}
_RECOVERIES = {
    "agent until it polls": "recovery_seconds",
    "node until it trains, without imports": "training_recovery_seconds",
    "coordinator until it gives work": "coordinator_recovery_seconds",
}
# Of these, what the parts found is added up; that they are 0 is what they are for.
_NOTHING = ("rounds_lost", "released_without_debit", "debits_for_resending")


@dataclass(frozen=True, slots=True)
class Tally:
    """One kind of fault.

    Attributes:
        lost_s: seconds that one of them cost, typically; None where that is not told.
        is_view: the faults were counted on another line; this one tells how long they took.
    """

    part: str
    kind: str
    injected: int
    survived: int
    lost_s: float | None = None
    is_view: bool = False


def tallies(fragment: Fragment) -> list[Tally]:
    """Return the faults of a part; one, not survived, of a part that left no figures."""
    if not fragment.facts:
        return [Tally(fragment.part, "no figures", 1, 0, fragment.seconds)]
    found = _READERS.get(fragment.part, _any)(fragment)
    if fragment.status and all(tally.injected == tally.survived for tally in found):
        found.append(Tally(fragment.part, f"exit status {fragment.status}", 1, 0))
    return found


def figures(fragments: Sequence[Fragment]) -> list[Figure]:
    """Return the figures of chaos.json, as far as parts left them."""
    counted = [t for one in fragments for t in tallies(one) if not t.is_view]
    injected, survived = (
        sum(getattr(t, name) for t in counted) for name in ("injected", "survived")
    )
    facts: Facts = {}
    for one in fragments:
        facts |= {name: value for name, value in one.facts.items() if name not in _NOTHING}
    for name in _NOTHING:
        said = [one.facts[name] for one in fragments if name in one.facts]
        facts |= {name: sum(said)} if said else {}
    points = facts.get("kill_points")
    listed: list[tuple[str, str, Comparison, float | None, str]] = [
        ("kill_points_hit", "", ">=", points, f"of {points}"),
        ("schedules_run", "", ">=", 100, ""),
        *((name, "", "<=", 0, "") for name in _NOTHING),
        ("epsilon_lost_to_crashes", "", "", None, "summed over sites, never refunded"),
        ("recovery_seconds_p95", "s", "<=", 5, _of(facts, "recovery_seconds")),
        ("training_recovery_seconds_p95", "s", "<=", 5, _of(facts, "training_recovery_seconds")),
        (
            "coordinator_recovery_seconds_p95",
            "s",
            "",
            None,
            _of(facts, "coordinator_recovery_seconds"),
        ),
        ("heartbeat_p99_during_aggregation_ms", "ms", "<=", 100, ""),
        ("transfer_passed_share_up", "", "", None, ""),
        ("transfer_passed_share_down", "", "", None, ""),
    ]
    found = [
        Figure(name, float(facts[name]), unit, sign, target, count=count)
        for name, unit, sign, target, count in listed
        if name in facts
    ]
    if imports := facts.get("import_seconds"):
        found.append(Figure("import_seconds", median(imports), "s", count="median, of a trainer"))
    share = survived / injected if injected else 0.0
    of_all = f"{survived} of {injected} faults"
    found.insert(0, Figure("faults_survived_share", share, "", ">=", 1.0, count=of_all))
    found += [Figure(f"seconds_{one.part}", one.seconds, "s") for one in fragments]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print both tables, and write chaos.json; 1 if anything fails."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos")
    parser.add_argument("--part", action="append", help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few faults, to try the parts")
    parser.add_argument("--keep", action="store_true", help="not again what succeeded before")
    options = parser.parse_args(arguments)
    wanted = options.part or [name for name in parts() if name not in _ELSEWHERE]
    end, fragments = time.monotonic() + _WHOLE_S, []
    for name in wanted:
        print(f"── {name}", flush=True)
        extra = _QUICK.get(name, []) if options.quick else []
        fragment = kept(name, extra) if options.keep else None
        fragments.append(fragment or run(name, extra, max(60.0, end - time.monotonic())))
    print(table([tally for one in fragments for tally in tallies(one)]), flush=True)
    is_whole = not options.quick and not options.part
    status = finish(
        "chaos",
        "make chaos",
        figures(fragments),
        notes=[
            "rounds_lost, released_without_debit and debits_for_resending are read from the disks",
            "of coordinator and sites after each study. epsilon_lost_to_crashes: epsilon per",
            "patient of reservations between reserve and commit, PLD, add/remove.",
        ],
        folder=RESULTS if is_whole else FOLDER,
    )
    failed = [one.part for one in fragments if one.status]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or (status and is_whole) else 0


def table(found: Sequence[Tally]) -> str:
    """Return the kinds of fault as lines: injected, survived, seconds lost by one."""
    rows = [("part", "fault", "injected", "survived", "seconds lost, each")]
    for one in found:
        lost = "" if one.lost_s is None else f"{one.lost_s:.2f}"
        rows.append((one.part, one.kind, str(one.injected), str(one.survived), lost))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _kills(fragment: Fragment) -> list[Tally]:
    facts, part = fragment.facts, fragment.part
    found = [Tally(part, "SIGKILL", facts["kills"], facts["kills"])]  # it fails where one is not
    for kind, name in _RECOVERIES.items():
        if seconds := facts[name]:
            count = len(seconds)
            found.append(Tally(part, f"  {kind}", count, count, median(seconds), is_view=True))
    return found


def _storm(fragment: Fragment) -> list[Tally]:
    facts, part = fragment.facts, fragment.part
    lost = facts["seconds_lost_a_fault"]
    found = [
        Tally(part, kind, count, count, lost.get(kind)) for kind, count in facts["faults"].items()
    ]
    harmed = facts["schedules_run"] - facts["schedules_survived"]
    return found + ([Tally(part, "schedules that failed", harmed, 0)] if harmed else [])


def _transfer(fragment: Fragment) -> list[Tally]:
    count = fragment.facts["transfer_breaks"]
    survived = 0 if fragment.status else count
    return [Tally(fragment.part, "cut or kill in a transfer", count, survived)]


def _field(fragment: Fragment) -> list[Tally]:
    facts, part = fragment.facts, fragment.part
    found = [Tally(part, name, 1, 1, seconds) for name, seconds in facts["seconds"].items()]
    found += [Tally(part, f"{name} (not played)", 0, 0) for name in facts["scenarios_not_played"]]
    missed = facts["scenarios_played"] - facts["scenarios_survived"]
    return found + ([Tally(part, "scenarios that failed", missed, 0)] if missed else [])


def _any(fragment: Fragment) -> list[Tally]:
    """Read a part by the names that all may use."""
    facts, part = fragment.facts, fragment.part
    injected = int(facts.get("faults_injected", 1))
    share = facts.get("faults_survived_share", 0.0 if fragment.status else 1.0)
    return [Tally(part, "faults", injected, round(share * injected))]


def _of(facts: Facts, name: str) -> str:
    return f"{len(facts.get(name, ()))} times"


_READERS: dict[str, Callable[[Fragment], list[Tally]]] = {
    "kills": _kills,
    "storm": _storm,
    "storm_transfer": _transfer,
    "field": _field,
}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # `run` ends its part
    sys.exit(main())
