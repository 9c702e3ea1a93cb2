"""A study with in-memory sites on a virtual clock: real run, journal, spool and worker."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from larrey_protocol.audit import AuditRecord
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.contract import Contract
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout, phase_layout
from larrey_protocol.signed import Certificate, Receipt, Signed, sign
from larrey_protocol.study import Study, StudyFile
from larrey_protocol.tensors import pack
from larrey_server.aggregator import Aggregator
from larrey_server.certificate_check import open_certificate
from larrey_server.checkpoints import Checkpoints
from larrey_server.journal import Journal, StudyRow
from larrey_server.round_values import Launched, Resumed, SiteUp, Task, TaskKey, Ticked
from larrey_server.spool import Spool
from larrey_server.study_run import Arrived, Message, StudyRun, Surroundings

SITES = ("alpha", "beta", "gamma", "delta")
SIGNER = SigningKey.generate()


def make_study(
    *,
    rounds: int = 3,
    spare: int = 1,
    quorum: int = 2,
    features: int = 9,
    strategy: str = "fedadam",
    calls: tuple[str, ...] = ("train",),
) -> Study:
    """Return a study without DP whose updates may have norm 100."""
    columns = [
        {"name": f"x{i}", "kind": "number", "range": [0, 1], "missing_max": 0}
        for i in range(features)
    ]
    contract = {
        "contract": {"name": "table", "version": "1.0.0"},
        "unit": {"column": "patient_id"},
        "label": {"column": "y", "positive": ["1"], "negative": ["0"]},
        "columns": columns,
    }
    parameters = {"eta": 0.1} if strategy == "fedadam" else {}
    app = {"app": "app", "calls": calls, "metrics": ["loss", "auc"]} if len(calls) > 1 else {}
    file = {
        "study": {"name": "sketch", "title": "A sketch", "question": "Does it go on?",
                  "purpose": "statistics", "permit": "test/1"},
        "model": {"name": "logistic"},
        "training": {"rounds": rounds, "spare_rounds": spare, "learning_rate": 1.0,
                     "strategy": strategy, "parameters": parameters, **app},
        "privacy": {"mechanism": "none", "max_update_norm": 100.0},
        "rounds": {"quorum": quorum, "deadline_s": 60.0},
        "sites": [{"name": s, "patients": 100 * (i + 1)} for i, s in enumerate(SITES)],
    }  # fmt: skip
    return Study(file=StudyFile.model_validate(file), contract=Contract.model_validate(contract))


def honest_update(study: Study, site: str, model: str) -> bytes:
    """Return what a site always answers to one input model."""
    seed = int(digest_bytes(f"{site} {model}".encode())[7:15], 16)
    layout = model_layout(study)
    return pack(layout, np.random.default_rng(seed).normal(size=layout.size).astype(np.float32))


def told_metrics(study: Study, site: str) -> bytes:
    """Return what a site answers when its app's other handlers are called: loss and AUC."""
    values = [float(SITES.index(site)), 0.1]
    return pack(phase_layout(study, "evaluate"), np.array(values, np.float32))


def make_receipt(
    study: Study, site: str, key: TaskKey, update: bytes, key_of: SigningKey
) -> Signed:
    """Return the receipt of an update."""
    receipt = Receipt(
        study=study.digest, site=site, round=key.round, phase=key.phase, model_in=key.model,
        update=digest_bytes(update), update_bytes=len(update), epsilon=-1.0, delta=0.0,
        accountant="none", ledger_head="", audit_head="", at=0.0,
    )  # fmt: skip
    return sign(receipt, key_of)


@dataclass
class Errands:
    """A courier that keeps what was sent until the test lets the sites answer."""

    waiting: list[tuple[str, Task]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def send(self, site: str, task: Task) -> None:
        self.waiting.append((site, task))

    def cancel(self, site: str, task: Task) -> None:
        self.cancelled.append(site)
        self.waiting = [errand for errand in self.waiting if errand != (site, task)]


class Bench:
    """A coordinator that can be killed between any two messages; its sites keep their answers."""

    def __init__(self, folder: Path, study: Study, aggregator: Aggregator) -> None:
        self.folder, self.study, self.aggregator = folder, study, aggregator
        self.now = 1000.0
        self.sites_up: list[str] = list(SITES)
        self.key = SigningKey.generate()
        self.update_of: dict[str, Callable[[Study, str, str], bytes]] = {}
        self.code_of: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        self.start()
        row = StudyRow(study.digest, study.name, b"proposal", "proposed", 0.0)
        self.journal.propose(row, "operator")

    def start(self) -> None:
        self.journal = Journal.open(self.folder / "coordinator.db")
        self.spool = Spool.open(self.folder / "spool")
        self.errands = Errands()
        self.posted: SimpleQueue[Message] = SimpleQueue()
        around = Surroundings(
            journal=self.journal, spool=self.spool, aggregator=self.aggregator,
            courier=self.errands, publish=self.events.append, signer=SIGNER,
            studies=self.folder / "studies", clock=lambda: self.now, wall=lambda: 0.0,
        )  # fmt: skip
        self.run = StudyRun(self.study, around, self.posted.put)

    def kill_and_restart(self) -> None:
        """Lose all memory; what the dead process had asked of the worker is answered to nobody."""
        self.journal.close()
        self.now += 1.0
        self.start()
        self.run.handle(Resumed(self.now))
        self.connect()

    def connect(self) -> None:
        for site in self.sites_up:
            self.run.handle(SiteUp(self.now, site))

    def launch(self, sites: tuple[str, ...] = SITES) -> None:
        self.run.handle(Launched(self.now, sites))
        self.connect()

    def answer(self, site: str, task: Task) -> None:
        code = self.code_of.get(site, "") or self.code_of.get(f"{site} {task.phase}", "")
        if code:
            self.run.handle(Arrived(self.now, site, task.key, "", None, code))
            return
        update = self.update_of.get(site, honest_update)(self.study, site, task.model)
        if task.phase != "train":
            update = told_metrics(self.study, site)
        receipt = make_receipt(self.study, site, task.key, update, self.key)
        digest = self.spool.add_bytes(update)
        self.run.handle(Arrived(self.now, site, task.key, digest, receipt, ""))

    def work(self) -> None:
        """Take one message of the worker; it always comes."""
        self.run.handle(self.posted.get(timeout=20))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.run.handle(Ticked(self.now))

    def play(self, shuffle: random.Random | None = None, steps: int = 10_000) -> None:
        """Let all waiting sites answer, in order or shuffled, until the study ends or stands."""
        for _ in range(steps):
            if self.run.state.status == "ended":
                return
            if self.errands.waiting:
                index = shuffle.randrange(len(self.errands.waiting)) if shuffle else 0
                self.answer(*self.errands.waiting.pop(index))
            elif self.run.state.status == "closing" or self.run._checking:
                self.work()
            else:
                return

    def model(self) -> bytes:
        state = self.run.state
        checkpoints = Checkpoints(self.folder / "studies", self.study)
        assert checkpoints.holds(state.applied, state.model)
        return checkpoints.model(state.applied).read_bytes()

    def audit(self) -> list[AuditRecord]:
        return list(self.journal.audit())


def certificate(bench: Bench) -> Certificate:
    data = bench.journal.certificate(bench.study.digest)
    assert data is not None
    return open_certificate(Signed.from_bytes(data), SIGNER.public)


def oracle(study: Study) -> bytes:
    """Return the final model of FedAdam in plain numpy, the whole vector at once."""
    layout = model_layout(study)
    params = np.zeros(layout.size, np.float32)
    m, v = np.zeros_like(params), np.full_like(params, 1e-6)
    for _ in range(study.file.training.rounds):
        digest = digest_bytes(pack(layout, params))
        mean = np.zeros_like(params)
        for site, weight in zip(SITES, study.weights, strict=True):
            update = honest_update(study, site, digest)[len(layout.header) :]
            mean += np.float32(weight) * np.frombuffer(update, "<f4")
        m = 0.9 * m + (1 - 0.9) * mean
        v = 0.99 * v + (1 - 0.99) * (mean * mean)
        params = params + 0.1 * m / (np.sqrt(v) + 1e-3)
    return pack(layout, params)
