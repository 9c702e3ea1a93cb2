"""Run the real programs with training that costs nothing, and watch what a round costs.

Coordinator and nodes are the shipped ones, over mutual TLS, with gate, ledger, receipts and
journal; only the app is `bench.noop_app`, listed by digest in each site's policy as a hospital
would list it. State lies on disk below ``runs/``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larrey_lab.federation.paperwork import approve, propose
from larrey_lab.federation.processes import Federation
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.contract import Contract
from larrey_protocol.study import Study, StudyFile
from larrey_server.operator import Operator
from larrey_server.settings import load_operator

__all__ = ["NoopRun", "Watcher", "fsync_seconds", "make_study", "noop_workspace", "run_noop"]

_ROOT = Path(__file__).parent
_DURABLE = ("site.db", "coordinator.db")  # the logs of egress and access do not wait for the disk
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class NoopRun:
    """What was seen of one study."""

    round_seconds: tuple[float, ...]  # without the first round
    open_to_last_answer: tuple[float, ...]  # of each round: transport and sites, not aggregation
    cpu_seconds_per_message: float
    commits_per_site_round: float
    peak_over_idle_bytes: int  # resident, coordinator and its worker together


def make_study(sites: int, hidden: tuple[int, ...], rounds: int) -> Study:
    """Return a study without privacy for the no-op app."""
    column = {"kind": "number", "range": [0, 1], "missing_max": 0.0}
    contract = Contract.model_validate(
        {
            "contract": {"name": "noop", "version": "1.0.0"},
            "unit": {"column": "pid"},
            "label": {"column": "y", "positive": ["1"], "negative": ["0"]},
            "columns": [{**column, "name": f"x{i}"} for i in range(4)],
        }
    )
    file = StudyFile.model_validate(
        {
            "study": {
                "name": "noop",
                "title": "No-op",
                "question": "What does a round cost?",
                "purpose": "statistics",
                "permit": "test/1",
            },
            "model": {"name": "mlp", "hidden": hidden},
            "training": {"rounds": rounds, "learning_rate": 1.0, "app": "noop"},
            "privacy": {"mechanism": "none", "max_update_norm": 1e6},
            "rounds": {"quorum": sites, "deadline_s": 120.0},
            "sites": [{"name": name, "patients": 20} for name in _names(sites)],
        }
    )
    return Study(file=file, contract=contract)


def run_noop(study: Study, *, idle_s: float = 1.0) -> NoopRun:
    """Return what one run of ``study`` cost; the first round, with its start-up, is left out."""
    with noop_workspace(study) as federation:
        federation.start_coordinator()
        federation.start_sites()
        with Operator(load_operator(federation.workspace.operator)) as operator:
            digest = propose(federation.workspace, operator, study)
            approve(federation.workspace, study)
            time.sleep(idle_s)
            coordinator = Watcher(federation.processes["coordinator"])
            everything = [Watcher(pid) for pid in federation.processes.values()]
            coordinator.start()
            commits = _commits(federation.workspace.folder)
            operator.launch(digest)
            return _follow(operator, digest, study, federation, (coordinator, everything, commits))


def _follow(
    operator: Operator,
    digest: str,
    study: Study,
    federation: Federation,
    instruments: tuple[Watcher, list[Watcher], int],
) -> NoopRun:
    coordinator, everything, commits = instruments
    applied: list[float] = []
    opened: dict[int, float] = {1: time.time()}
    answered: dict[int, float] = {}
    last: dict[str, Any] = {"sites": {}}
    before = 0.0
    for event in operator.watch(digest):
        kind = event.get("event")
        if kind == "round-opened":
            opened[event["round"]] = event["at"]
        elif kind == "site-answered":
            answered[event["round"]] = event["at"]
        elif kind == "round-applied":
            if not applied:
                before = sum(watcher.cpu_seconds() for watcher in everything)
            applied.append(event["at"])
            last = event
    cpu = sum(watcher.cpu_seconds() for watcher in everything) - before
    sites, rounds = len(study.file.sites), study.file.training.rounds
    contributed = [s for s, row in last["sites"].items() if row["outcome"] == "contributed"]
    if len(applied) != rounds or len(contributed) != sites:
        raise RuntimeError(
            f"{len(applied)} of {rounds} rounds, {len(contributed)} of {sites} sites"
        )
    return NoopRun(
        tuple(b - a for a, b in itertools.pairwise(applied)),
        tuple(answered[r] - opened[r] for r in range(2, rounds + 1)),
        cpu / (sites * (rounds - 1)),
        (_commits(federation.workspace.folder) - commits) / (sites * rounds),
        coordinator.peak_over_start(),
    )


class Watcher:
    """Reads the resident memory and CPU seconds of a process and its children from /proc."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._idle = 0

    def start(self) -> None:
        """Take the present resident memory as idle and forget earlier peaks."""
        self._idle = sum(_status(pid, "VmRSS") for pid in self._tree())
        for pid in self._tree():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_over_start(self) -> int:
        """Return the sum of the processes' peaks since `start`, minus idle, in bytes."""
        return sum(_status(pid, "VmHWM") for pid in self._tree()) - self._idle

    def cpu_seconds(self) -> float:
        """Return user and system seconds of the tree so far."""
        total = 0
        for pid in self._tree():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def _tree(self) -> list[int]:
        found, todo = [], [self._pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        return found


def fsync_seconds(folder: Path) -> float:
    """Return the median seconds of writing 4 KiB and waiting for the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    path, seconds = folder / "fsync", []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    for _ in range(101):
        os.write(descriptor, bytes(4096))
        start = time.perf_counter()
        os.fdatasync(descriptor)
        seconds.append(time.perf_counter() - start)
    os.close(descriptor)
    path.unlink()
    return sorted(seconds)[50]


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def noop_workspace(study: Study, *, metrics: bool = False) -> Iterator[Federation]:
    """Yield a federation for ``study``, not yet started; its folder goes at the end."""
    folder = Path("runs") / f"bench-{study.name}"
    shutil.rmtree(folder, ignore_errors=True)
    data = folder / "noop.csv"
    folder.mkdir(parents=True)
    rows = "\n".join(f"p{i},{i % 2},0.1,0.2,0.3,0.4" for i in range(30))
    data.write_text(f"pid,y,x0,x1,x2,x3\n{rows}\n")
    module = _ROOT / "noop_app.py"
    app = {
        "name": "noop",
        "module": "bench.noop_app:app",
        "digest": digest_bytes(module.read_bytes()),
        "unaccounted": True,
    }
    policy: dict[str, Any] = {"allow_without_dp": ["noop"], "apps": [app], "min_units": 20}
    plans = [
        SitePlan(name, data, "noop", unit="pid", policy=policy) for name in study.file.site_names
    ]
    os.environ["PYTHONPATH"] = str(_ROOT.parent)
    with Federation(create_workspace(folder / "sites", plans, metrics=metrics)) as federation:
        yield federation
    shutil.rmtree(folder, ignore_errors=True)


def _commits(folder: Path) -> int:
    """Return the durable commits in the write-ahead logs; only a study short of a checkpoint."""
    logs = [path for name in _DURABLE for path in folder.rglob(f"{name}-wal")]
    return sum(map(_commit_frames, logs))


def _commit_frames(path: Path) -> int:
    """Count frames that end a transaction (https://sqlite.org/fileformat2.html, section 4.1)."""
    data = path.read_bytes()
    if len(data) < 32:
        return 0
    page_bytes = struct.unpack(">I", data[8:12])[0]
    salts, count = data[16:24], 0
    for at in range(32, len(data) - 24, page_bytes + 24):
        database_pages = struct.unpack(">I", data[at + 4 : at + 8])[0]
        count += data[at + 8 : at + 16] == salts and database_pages > 0
    return count


def _names(count: int) -> list[str]:
    return [f"site-{i:02d}" for i in range(count)]
