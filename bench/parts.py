"""What each part of the full path costs, measured alone on the same disk as the rounds."""

from __future__ import annotations

import datetime as dt
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.noop_federation import make_study
from larrey_client.approvals import Consent
from larrey_client.cost import round_mechanism, study_facts, total_mechanism
from larrey_client.frames import memory_file
from larrey_client.gate import decide_task
from larrey_client.gate_facts import Ground, StudyCase, TaskCase, Warrant
from larrey_client.orders import Standing
from larrey_client.records import Answered
from larrey_client.settings import Policy
from larrey_client.store import SiteStore
from larrey_client.task import Task
from larrey_privacy.filter import make_filter
from larrey_privacy.ledger import Entry, Hold, Kind
from larrey_protocol.audit import GENESIS, AuditRecord
from larrey_protocol.canonical import digest_bytes, digest_of
from larrey_protocol.envelope import check_update
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.permit import Permit
from larrey_protocol.roster import Roster, Seat
from larrey_protocol.signed import Receipt, open_signed, sign
from larrey_protocol.study import DpSgd, Study
from larrey_protocol.tensors import pack
from larrey_server.journal import Journal, StudyRow, Transition

__all__ = ["prices"]

_TIMES = 200


def prices() -> dict[str, float]:
    """Return the median seconds of each part by figure name (without the unit's factor)."""
    study = _private_study()
    with tempfile.TemporaryDirectory(dir="runs") as name:
        folder = Path(name)
        return {
            "gate_ms": _median(_gate(study)),
            **_site_commits(study, folder),
            "check_update_ms": _median(_check(study)),
            "receipt_ms": _median(_receipt(study)),
            "journal_commit_ms": _median(_journal(study, folder)),
        }


def _median(work: Callable[[int], object]) -> float:
    seconds = []
    for i in range(1, _TIMES + 1):
        start = time.perf_counter()
        work(i)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _private_study() -> Study:
    """Return the no-op study as a private one, so that every rule of the gate is asked."""
    study = make_study(4, (100, 95), _TIMES)
    file = study.file
    privacy = DpSgd(
        mechanism="dp-sgd",
        epsilon=8,
        delta=1e-5,
        noise_multiplier=60,
        clip=1,
        sampling_rate=1,
    )
    training = file.training.model_copy(update={"app": None})
    return Study(
        file=file.model_copy(update={"privacy": privacy, "training": training}),
        contract=study.contract,
    )


def _task(study: Study, number: int) -> Task:
    model = digest_bytes(str(number).encode())
    size = model_layout(study).nbytes
    return Task(study.digest, number, "train", 1, model, size, 60.0, f"1:{GENESIS}")


def _gate(study: Study) -> Callable[[int], object]:
    policy = Policy(max_epsilon_per_study=8)
    site = study.file.site_names[0]
    warrant = _warrant(study)
    case = StudyCase(
        site, policy, study, study_facts(study, None), ("noop",), "noop", 30, 999,
        is_registered=True,
        warrant=warrant,
        consent=Consent("approved", warrant.permit_digest, warrant.seats, "noop"),
    )  # fmt: skip
    ground = Ground(is_policy_signed=True, clock_lag_s=0.0, anchors_code="", altered="")
    launched = Standing(launched_by="bench", launched_key=warrant.consortium)
    task, hold = _task(study, 1), _held(study)
    return lambda _: decide_task(TaskCase(task, 60.0, ground, case, launched, hold))


def _warrant(study: Study) -> Warrant:
    """Return a permit and a roster that let every site of the study run it today."""
    key, today = SigningKey.generate().public, dt.datetime.now(dt.UTC).date()
    names = study.file.site_names
    seats = tuple(Seat(name=name, key=SigningKey.generate().public) for name in names)
    roster = Roster(version=1, issued_at=0.0, sites=seats)
    permit = Permit.model_validate(
        {
            "permit": {"reference": study.file.study.permit, "authority": "bench"}
            | {"decided_on": today},
            "use": {"legal_basis": "internal", "purposes": [study.file.study.purpose]}
            | {"controllers": ["bench"], "people": ["bench"]}
            | dict.fromkeys(("valid_from", "valid_until", "retention_until"), today),
            "datasets": [{"site": name, "dataset": "noop"} for name in names],
            "rules": {"dpia": "none", "ethics": "none"},
            "hosting": {"provider": "bench", "country": "FR"},
        }
    )
    digest = digest_of(permit.model_dump(mode="json"))
    return Warrant(
        signer=key, consortium=key, roster=roster, permit=permit, permit_digest=digest,
        seats=roster.seats_digest(names), is_countersigned=True, day=today,
    )  # fmt: skip


def _held(study: Study) -> Hold:
    training = study.file.training
    entry = Entry(1, Kind.HOLD, "noop", {}, "", "", "")
    return Hold(entry, round_mechanism(study), training.rounds_held, training.spare_rounds, 1)


def _site_commits(study: Study, folder: Path) -> dict[str, float]:
    store = SiteStore.open(folder / "site", time.time)
    held = study.file.training.rounds_held
    spare = study.file.training.spare_rounds
    with store.transaction():
        store.ledger.register("noop", make_filter(8, 1e-5), "patient")
        store.ledger.hold("noop", study.digest, total_mechanism(study), held, spare_rounds=spare)

    def reserve(number: int) -> None:
        task = _task(study, number)
        with store.transaction():
            store.ledger.reserve("noop", study.digest, number, task.model, round_mechanism(study))
            store.audit("round-reserved", "bench", study=study.digest, round=number)

    def commit(number: int) -> None:
        task = _task(study, number)
        with store.transaction():
            store.ledger.commit("noop", study.digest, number, task.model, task.model)
            store.audit("update-released", "bench", study=study.digest, round=number)
            store.add_answer(task.key, Answered(task.model, 1, bytes(900)))

    found: dict[str, list[float]] = {"reserve_commit_ms": [], "answer_commit_ms": []}
    for number in range(1, _TIMES + 1):
        for name, work in (("reserve_commit_ms", reserve), ("answer_commit_ms", commit)):
            start = time.perf_counter()
            work(number)
            found[name].append(time.perf_counter() - start)
    store.close()
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _check(study: Study) -> Callable[[int], object]:
    layout = model_layout(study)
    flat = np.random.default_rng(0).random(layout.size, dtype=np.float32)
    update = memory_file("update", [pack(layout, flat)])
    return lambda _: check_update(update, layout, norm_bound=1e9)


def _receipt(study: Study) -> Callable[[int], object]:
    key, digest = SigningKey.generate(), digest_bytes(os.urandom(8))

    def work(number: int) -> object:
        receipt = Receipt(
            study=study.digest,
            site="site-00",
            round=number,
            phase="train",
            model_in=digest,
            update=digest,
            update_bytes=1,
            epsilon=1.0,
            delta=1e-5,
            accountant="pld",
            ledger_head=f"1:{GENESIS}",
            audit_head=f"1:{GENESIS}",
            at=0.0,
        )
        return open_signed(sign(receipt, key), Receipt, key.public)

    return work


def _journal(study: Study, folder: Path) -> Callable[[int], object]:
    journal = Journal.open(folder / "coordinator.db")
    journal.propose(StudyRow(study.digest, "noop", b"", "proposed", 0.0), "bench")
    snapshot = {"round": 1, "model": study.digest, "sites": dict.fromkeys(map(str, range(4)), "x")}

    def work(number: int) -> object:
        record = AuditRecord(0, 0.0, "coordinator", "round-applied", study.digest, number)
        return journal.commit(Transition(study.digest, snapshot, record))

    return work
