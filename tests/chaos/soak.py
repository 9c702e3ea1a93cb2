"""Many rounds with random faults: nothing may grow but the journal, and that by as much a round.

    python tests/chaos soak --out FOLDER [--rounds N] [--sites N] [--seed N] [--folder FOLDER]

Coordinator and sites run as a hospital runs them. Two sites are looked at and never killed; the
others, their trainers and the aggregation worker are killed throughout, everybody is stalled now
and then. The coordinator is killed, too, but only in the first tenth of the rounds: what grows is
told by processes that live to the end. ``soak.json`` has the looks and the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from tests.chaos import proofs
from tests.chaos.stand import APPS, Stand
from tests.chaos.vitals import Vitals, alike, first_and_last, look
from tests.system.hospitals import DATASET, Hospitals, descendants, make_study, table

Say = Callable[[str], None]
_WORKER = "larrey_server.aggregation"
_OFTEN = ("kill-node", "kill-trainer", "kill-worker", "stall-node", "stall-coordinator")
_LONGEST_STALL_S = 1.5
_COORDINATOR_KILLS = 3
_CALM = 3  # rounds before the first fault and after the last
_LIMIT_S = 120.0  # of a round, whatever happens in it
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Fault:
    """What strikes once so many rounds are applied.

    Attributes:
        round: when.
        kind: ``kill-`` (SIGKILL) or ``stall-`` (SIGSTOP) and who.
        site: whom, where it is a node or its trainer.
        seconds: of a stall.
    """

    round: int
    kind: str
    site: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Soak:
    """What was seen of one study."""

    rounds: int
    looks: Mapping[str, Sequence[Vitals]]  # by program, of those that are looked at
    struck: Sequence[Fault]
    lost_s: Sequence[float]  # of each of them, until another round was applied
    round_s: Sequence[float]  # of the rounds from the second on
    spool_most: Mapping[str, int]
    model_bytes: int
    sites: int
    seconds: float
    outcome: str


def plan(rounds: int, sites: Sequence[str], share: float, chance: random.Random) -> list[Fault]:
    """Return faults in order; ``share`` is that of rounds which one strikes.

    The first two sites are stalled at most.
    """
    found = [
        _fault(number, sites, chance)
        for number in range(_CALM, rounds - _CALM)
        if chance.random() < share
    ]
    tenth = rounds // 10
    early = range(_CALM, max(_CALM, tenth // 3))
    kills = min(_COORDINATOR_KILLS, len(early) // 4)
    found += [Fault(number, "kill-coordinator") for number in chance.sample(early, kills)]
    # Then everybody at once waits for it: its threads, started as they are needed, are all there.
    found += [Fault(n, "stall-coordinator", "", _LONGEST_STALL_S) for n in (tenth - 2, tenth - 1)]
    return sorted(found, key=lambda fault: fault.round)


def study_of(sites: Sequence[str], rounds: int) -> Study:
    """Return a study that goes on without the sites that are down at the moment."""
    return make_study(
        "soak",
        model={"name": "mlp", "hidden": [256, 128]},
        training={"app": "seeded", "rounds": rounds, "spare_rounds": 100, "learning_rate": 1.0},
        privacy={"mechanism": "none", "max_update_norm": 1e3},
        rounds={"quorum": max(2, len(sites) // 2), "deadline_s": 20.0},
        sites=[{"name": site, "patients": 25} for site in sites],
    )


def make_stand(folder: Path, sites: Sequence[str]) -> Stand:
    """Return sites and a coordinator whose folders are written; nothing runs yet."""
    folder.mkdir(parents=True, exist_ok=True)
    module = APPS / "seeded_app.py"
    digest = digest_bytes(module.read_bytes())
    app = {"name": "seeded", "module": "seeded_app:app", "digest": digest, "unaccounted": True}
    policy = {"allow_without_dp": [DATASET], "apps": [app], "min_units": 20}
    plans = []
    for number, name in enumerate(sites):
        data = folder / f"{name}.csv"
        data.write_text(table(number))
        plans.append(SitePlan(name, data, DATASET, unit="pid", policy=policy))
    return Stand(create_workspace(folder / "federation", plans))


class Run:
    """One study under faults, and the looks at it."""

    def __init__(self, stand: Stand, study: Study, faults: Sequence[Fault], say: Say) -> None:
        self._stand, self._study, self._say = stand, study, say
        self._hospitals = Hospitals(stand)
        self._faults = list(faults)
        self._looked_at = {p.name: p for p in stand.programs[:3]}
        self._looks: dict[str, list[Vitals]] = {name: [] for name in self._looked_at}
        self._struck: list[tuple[Fault, float]] = []

    def __call__(self) -> Soak:
        """Run it to its end.

        Raises:
            AssertionError: a round hung, was lost or applied twice, or a program ended by itself.
        """
        began, rounds = time.monotonic(), self._study.file.training.rounds
        self._hospitals.launch(self._study)
        every = max(1, rounds // 100)
        changed, done, due = time.monotonic(), 0, every
        while done < rounds:
            now = proofs.applied(self._stand.workspace, self._study.digest)
            if now == done:
                assert time.monotonic() - changed < _LIMIT_S, self._stuck(done)
                time.sleep(_LOOK_EVERY_S)
                continue
            done, changed = now, time.monotonic()
            if done >= due:
                self._look(done)
                due = done + every
            self._strike(done)
        outcome = self._hospitals.finish(self._study.digest).outcome
        times = proofs.times_applied(self._stand.workspace, self._study.digest)
        assert times == list(range(1, rounds + 1))
        assert self._stand.unwanted_deaths() == []
        applied = self._applied_at()
        return Soak(
            rounds,
            self._looks,
            [fault for fault, _ in self._struck],
            [min((t for t in applied if t > at), default=at) - at for _, at in self._struck],
            [after - before for before, after in pairwise(applied)],
            {name: max(one.spool for one in found) for name, found in self._looks.items()},
            model_layout(self._study).nbytes,
            len(self._study.file.sites),
            time.monotonic() - began,
            outcome,
        )

    def _look(self, number: int) -> None:
        for name, program in self._looked_at.items():
            with suppress(OSError):  # it was killed a moment ago
                state = _state(self._stand, name)
                found = look(number, program.pid, state, beside=_WORKER)
                self._looks[name].append(found)
        if number % 50 == 0:
            held = [f"{n} {v[-1].memory >> 20} MiB" for n, v in self._looks.items() if v]
            self._say(f"round {number}: {len(self._struck)} faults; {', '.join(held)}")

    def _strike(self, done: int) -> None:
        """Do what is due; what finds nobody to strike waits for the next round."""
        while self._faults and self._faults[0].round <= done:
            at = time.monotonic()
            if not strike(self._stand, self._faults[0]):
                return
            self._struck.append((self._faults.pop(0), at))

    def _applied_at(self) -> list[float]:
        marks = self._stand.coordinator.trace()
        return [mark.at for mark in marks if mark.label == "coordinator.model-offered"]

    def _stuck(self, done: int) -> str:
        said = "\n".join(f"--- {p.name}\n{p.tail()}" for p in self._stand.programs)
        return f"round {done + 1} hangs after {self._struck[-1:]}\n{said}"


def strike(stand: Stand, fault: Fault) -> bool:
    """Return whether there was somebody to strike."""
    what, _, whom = fault.kind.partition("-")
    program = stand.sites[fault.site] if fault.site else stand.coordinator
    if whom in {"trainer", "worker"}:
        pids = descendants(program.pid)
    else:
        pids = [program.pid, *(descendants(program.pid) if what == "stall" else ())]
    with suppress(ProcessLookupError):
        if what == "kill":
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        else:
            _stall(pids, fault.seconds)
    return bool(pids)


def figures(ran: Soak, since: int = 0) -> dict[str, Any]:
    """Return what grew from a round on, by default a tenth of all, and what faults cost."""
    since = since or ran.rounds // 10
    kept = {name: alike(looks, since) for name, looks in ran.looks.items()}
    nodes = [name for name in kept if name != "coordinator"]
    memory = {name: _ratio(looks, lambda one: one.memory) for name, looks in kept.items()}
    slow = ran.round_s[since:]
    half = len(slow) // 2
    return {
        "rounds": ran.rounds,
        "sites": ran.sites,
        "outcome": ran.outcome,
        "seconds": round(ran.seconds, 1),
        "faults": dict(Counter(fault.kind for fault in ran.struck)),
        "faults_injected": len(ran.struck),
        "seconds_lost": {
            kind: round(
                median(s for f, s in zip(ran.struck, ran.lost_s, strict=True) if f.kind == kind), 3
            )
            for kind in {fault.kind for fault in ran.struck}
        },
        "looks": {name: len(looks) for name, looks in kept.items()},
        "first_look_at_round": {name: looks[0].round for name, looks in kept.items()},
        "memory_growth_ratio_coordinator": memory["coordinator"],
        "memory_growth_ratio_node": max(memory[name] for name in nodes),
        "memory_growth_ratio_agent": max(
            _ratio(kept[name], lambda one: one.memory_of[0]) for name in nodes
        ),
        "memory_mib": {name: looks[-1].memory / 2**20 for name, looks in kept.items()},
        "files_growth": max(_growth(looks, lambda one: one.files) for looks in kept.values()),
        "threads_growth": max(_growth(looks, lambda one: one.threads) for looks in kept.values()),
        "spool_most_models_coordinator": ran.spool_most["coordinator"] / ran.model_bytes,
        "spool_most_models_node": max(ran.spool_most[name] for name in nodes) / ran.model_bytes,
        "journal_bytes_per_round": {name: _slope(looks) for name, looks in kept.items()},
        "journal_slope_ratio": max(
            _slope(looks[len(looks) // 2 :]) / _slope(looks[: len(looks) // 2 + 1])
            for looks in kept.values()
        ),
        "round_seconds": median(slow),
        "round_seconds_ratio": _quick(slow[half:]) / _quick(slow[:half]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, print the figures, and write ``soak.json``."""
    parser = argparse.ArgumentParser(prog="python tests/chaos soak")
    parser.add_argument("--out", type=Path, required=True, help="folder for soak.json")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--sites", type=int, default=8)
    parser.add_argument("--faults", type=float, default=0.1, help="share of rounds with one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep all state here")
    options = parser.parse_args(arguments)
    sites = [f"site-{number}" for number in range(options.sites)]
    faults = plan(options.rounds, sites, options.faults, random.Random(options.seed))
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {text}\n")
        sys.stdout.flush()

    scratch = tempfile.TemporaryDirectory(prefix="larrey-soak-")
    with scratch as folder, make_stand(options.folder or Path(folder), sites) as stand:
        ran = Run(stand, study_of(sites, options.rounds), faults, say)()
    found = figures(ran)
    sys.stdout.write("".join(f"{name:32} {value}\n" for name, value in found.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    found["all_looks"] = {name: [asdict(v) for v in looks] for name, looks in ran.looks.items()}
    found["all_round_seconds"] = [round(seconds, 4) for seconds in ran.round_s]
    (options.out / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _fault(number: int, sites: Sequence[str], chance: random.Random) -> Fault:
    kind = chance.choice(_OFTEN)
    at_site = kind in {"kill-node", "kill-trainer", "stall-node"}
    able = sites[2:] if kind.startswith("kill") else sites
    seconds = round(chance.uniform(0.2, _LONGEST_STALL_S), 2) if "stall" in kind else 0.0
    return Fault(number, kind, chance.choice(able) if at_site else "", seconds)


def _stall(pids: Sequence[int], seconds: float) -> None:
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _state(stand: Stand, name: str) -> Path:
    if name == "coordinator":
        return stand.workspace.coordinator.parent / "state"
    return stand.workspace.site(name).parent / "state"


def _ratio(looks: Sequence[Vitals], of: Callable[[Vitals], float]) -> float:
    first, last = first_and_last(looks, of)
    return last / first if first else 1.0


def _growth(looks: Sequence[Vitals], of: Callable[[Vitals], float]) -> float:
    first, last = first_and_last(looks, of)
    return last - first


def _quick(seconds: Sequence[float]) -> float:
    """Return the lower quartile: what a round takes in which nothing strikes."""
    return quantiles(seconds, n=4)[0]


def _slope(looks: Sequence[Vitals]) -> float:
    """Return bytes a round between the first and the last look."""
    return (looks[-1].journal - looks[0].journal) / max(1, looks[-1].round - looks[0].round)
