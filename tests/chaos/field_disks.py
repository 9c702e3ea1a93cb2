"""Disks that go wrong under a study: full, read-only, held by another program, altered.

Scenarios of `field.toml`, played by `tests.chaos.field` on its stand. Those of `MOUNTED` need state
folders on disks of their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from larrey_client.settings import load_settings
from tests.chaos import proofs
from tests.chaos.field_machine import is_whole, trains
from tests.chaos.field_stand import SITES, Field
from tests.system.hospitals import until


def full_coordinator(field: Field) -> None:
    """D1: no room is left at the coordinator while gamma trains; then there is."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study())
    trains(field, digest)
    disk = field.disks[0]
    disk.fill()
    field.order("gamma")
    until(lambda: field.hospitals.status(digest).get("stalled") == "disk-full")
    assert field.hospitals.status(digest)["applied"] == 0
    disk.free()
    certificate = field.hospitals.finish(digest)
    assert certificate.outcome == "COMPLETE"
    is_whole(field, digest, 2)


def full_site(field: Field) -> None:
    """D2: no room is left at gamma: it spends and sends nothing; then there is room."""
    digest = field.hospitals.propose(field.study(rounds=3))
    field.order("alpha", "hold")
    disk, answered = field.disks[1], field.gamma.count("agent.answer-committed")
    disk.fill()
    with field.hospitals.operator() as operator:
        operator.launch(digest)
    until(lambda: "[disk-full]" in field.gamma.tail())
    until(lambda: field.state(digest, "alpha") == "working")
    assert field.gamma.count("agent.answer-committed") == answered
    assert field.hospitals.rounds_used("gamma", digest) == 0
    disk.free()
    until(lambda: field.state(digest, "gamma") in {"answered", "refused"})
    _goes_on(field, digest, "contributed", "site-not-ready", "node-failed")


def readonly_coordinator(field: Field) -> None:
    """D3: the coordinator's state takes no writes: it does not start, says so, and then it does."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study())
    trains(field, digest)
    program = field.stand.coordinator
    with _takes_no_writes(field, program.name):
        until(lambda: "state-read-only" in program.tail())
        assert field.hospitals.status(digest)["state"] == ""  # nobody answers
    program.await_ready()
    field.order("gamma")
    assert field.hospitals.finish(digest).outcome == "COMPLETE"
    is_whole(field, digest, 2)


def readonly_site(field: Field) -> None:
    """D4: gamma's state takes no writes: it does not start, says so; the others go on."""
    # A connection that ended without a word may be noticed only at the deadline of the first round.
    digest = field.hospitals.propose(field.study(rounds=6, deadline_s=15.0))
    field.order("alpha", "slow")
    with _takes_no_writes(field, "gamma"):
        until(lambda: "state-read-only" in field.gamma.tail())
        with field.hospitals.operator() as operator:
            operator.launch(digest)
        until(lambda: field.hospitals.status(digest)["applied"] >= 1)
        assert field.hospitals.rounds_used("gamma", digest) == 0
    field.gamma.await_ready()
    until(lambda: field.probe("/readyz") == 200)
    until(lambda: field.state(digest, "gamma") in {"working", "answered"})
    _goes_on(field, digest, "absent", rounds=6)


def locked_database(field: Field) -> None:
    """D5: another program holds the coordinator's database; the study goes on when it lets go."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study())
    trains(field, digest)
    with _held(_state(field) / "coordinator.db"):
        field.order("gamma")
        until(lambda: field.hospitals.status(digest).get("stalled") == "state-locked")
    assert field.hospitals.finish(digest).outcome == "COMPLETE"
    is_whole(field, digest, 2)


def locked_site(field: Field) -> None:
    """D6: another program holds gamma's database; nothing leaves it that is not on record."""
    field.order("gamma", "hold")
    digest = field.hospitals.launch(field.study(rounds=3))
    trains(field, digest)
    state = load_settings(field.hospitals.config("gamma")).site.state
    with _held(next(state.glob("*.db"))):
        field.order("gamma")
        until(lambda: field.state(digest, "gamma") != "working")
    certificate = field.hospitals.finish(digest)
    assert certificate.rounds_applied == 3
    assert field.outcomes(certificate, "gamma")[-1] == "contributed"
    is_whole(field, digest, 3)


def corrupted_checkpoint(field: Field) -> None:
    """D7: the newest checkpoint is altered, the coordinator killed: it is made again, aloud."""
    digest = field.hospitals.propose(field.study(rounds=3))
    field.order("gamma")
    with field.hospitals.operator() as operator:
        operator.launch(digest)
    until(lambda: field.hospitals.status(digest)["applied"] >= 1)
    field.order("gamma", "hold")
    until(lambda: field.state(digest, "gamma") == "working")
    model = proofs.final_model(field.stand.workspace, digest)
    number = proofs.applied(field.stand.workspace, digest)
    folder = _state(field) / "studies" / digest.removeprefix("sha256:")[:12]
    newest = folder / f"round-{number:04d}.safetensors"
    content = newest.read_bytes()
    newest.unlink()
    newest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    field.kill(field.stand.coordinator)
    field.stand.coordinator.await_ready()
    field.order("gamma")
    assert field.hospitals.finish(digest).outcome == "COMPLETE"
    with proofs.looking(field.stand.workspace) as journal:
        said = [r for r in journal.audit() if (r.study, r.action) == (digest, "checkpoint-rebuilt")]
    assert [(record.round, record.subject) for record in said] == [(number, model)]
    is_whole(field, digest, 3)


MOUNTED = (full_coordinator, full_site, readonly_coordinator, readonly_site)
DISKS = (*MOUNTED, locked_database, locked_site, corrupted_checkpoint)


def _goes_on(field: Field, study: str, *first: str, rounds: int = 3) -> None:
    """Let the study go on; one of these became of gamma first, and it contributes to the last."""
    field.order("alpha")
    certificate = field.hospitals.finish(study)
    outcomes = field.outcomes(certificate, "gamma")
    assert outcomes[0] in first, outcomes
    assert outcomes[-1] == "contributed", outcomes
    for site in SITES[:2]:
        assert field.outcomes(certificate, site) == ["contributed"] * rounds
    is_complete = set(outcomes) == {"contributed"}
    assert certificate.outcome == ("COMPLETE" if is_complete else "PARTIAL")
    is_whole(field, study, rounds)


@contextmanager
def _takes_no_writes(field: Field, name: str) -> Iterator[None]:
    """Start a program on a state folder that takes no writes, which it has to itself."""
    is_site = name == "gamma"
    program = field.gamma if is_site else field.stand.coordinator
    disk = field.disks[is_site]
    program.may_fail = True
    program.down()
    disk.lock()
    program.up()
    try:
        yield
    finally:
        disk.unlock()


def _state(field: Field) -> Path:
    return field.stand.workspace.coordinator.parent / "state"


@contextmanager
def _held(database: Path) -> Iterator[None]:
    """Hold a database as another program would that writes for long."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


__all__ = ["DISKS", "MOUNTED"]
