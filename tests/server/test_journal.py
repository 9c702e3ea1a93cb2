"""The journal: one writer, durable steps, nothing rewritten."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from larrey_protocol.audit import AuditRecord
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_server.journal import AnswerRow, ContributionRow, Journal, StudyRow, Transition
from larrey_server.round_values import Cell

STUDY = StudyRow("sha256:" + "1" * 64, "sketch", b"signed proposal", "proposed", 5.0)
STEP = Transition(
    STUDY.digest,
    {"round": 1},
    AuditRecord(0, 6.0, "coordinator", "study-launched", STUDY.digest),
    (ContributionRow(Cell("alpha", 1, 1, "contributed", nbytes=8), (b"receipt",)),),
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(tmp_path / "coordinator.db")
    opened.propose(STUDY, "operator")
    yield opened
    opened.close()


def test_a_second_coordinator_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    first = Journal.open(tmp_path / "j.db")
    with pytest.raises(Refusal, match="state-locked"):
        Journal.open(tmp_path / "j.db")
    first.close()
    Journal.open(tmp_path / "j.db").close()


def test_everything_committed_is_there_after_a_kill(tmp_path: Path) -> None:
    code = f"""
import os
from test_journal import AnswerRow, Journal, Path, STEP, STUDY
journal = Journal.open(Path({str(tmp_path / "j.db")!r}))
journal.propose(STUDY, "operator")
journal.answer(STUDY.digest, AnswerRow("alpha", "approved", "", b"signed"), 5.5)
journal.commit(STEP)
os.kill(os.getpid(), 9)
"""
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=here, check=False)
    assert done.returncode == -9
    journal = Journal.open(tmp_path / "j.db")
    assert journal.studies() == (replace(STUDY, state="open"),)
    assert journal.answers(STUDY.digest)[0].answer == b"signed"
    assert journal.snapshot(STUDY.digest) == {"round": 1}
    assert journal.contributions(STUDY.digest) == STEP.contributions
    journal.verify()
    journal.close()


def test_a_study_is_proposed_once(journal: Journal) -> None:
    head = journal.head()
    assert not journal.propose(STUDY, "operator")
    assert journal.head() == head


def test_a_site_s_newer_answer_replaces_the_older_and_the_chain_keeps_both(
    journal: Journal,
) -> None:
    journal.answer(STUDY.digest, AnswerRow("alpha", "refused", "noise-below-minimum", b"1"), 6.0)
    journal.answer(STUDY.digest, AnswerRow("alpha", "approved", "", b"2"), 7.0)
    assert [row.decision for row in journal.answers(STUDY.digest)] == ["approved"]
    assert [r.action for r in journal.audit()][1:] == ["study-refused", "study-approved"]


def test_a_step_that_fails_half_way_changes_nothing(journal: Journal) -> None:
    def broken(head: str) -> bytes:
        raise RuntimeError("signer gone")

    head = journal.head()
    with pytest.raises(RuntimeError, match="signer gone"):
        journal.commit(replace(STEP, certify=broken))
    assert (journal.head(), journal.snapshot(STUDY.digest)) == (head, None)
    journal.commit(STEP)
    journal.verify()


def test_the_same_attempt_cannot_be_recorded_twice(journal: Journal) -> None:
    journal.commit(STEP)
    with pytest.raises(sqlite3.IntegrityError):
        journal.commit(STEP)


def test_a_certificate_is_made_from_the_head_that_is_committed_with_it(journal: Journal) -> None:
    head = journal.commit(replace(STEP, certify=lambda head: head.encode()))
    assert journal.certificate(STUDY.digest) == head.encode()
    assert journal.studies()[0].state == "ended"


@pytest.mark.parametrize("table", ["audit", "transitions", "contributions"])
@pytest.mark.parametrize("verb", ["DELETE FROM {}", "UPDATE {} SET study = 'x'"])
def test_what_is_only_added_to_cannot_be_changed(
    journal: Journal, tmp_path: Path, table: str, verb: str
) -> None:
    journal.commit(STEP)
    other = sqlite3.connect(tmp_path / "coordinator.db")
    with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
        other.execute(verb.format(table))
    other.close()


def test_a_rewritten_audit_trail_is_found(journal: Journal, tmp_path: Path) -> None:
    journal.commit(STEP)
    other = sqlite3.connect(tmp_path / "coordinator.db")
    other.execute("DROP TRIGGER audit_no_update")
    other.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 1")
    other.commit()
    other.close()
    with pytest.raises(IntegrityError, match="audit-broken"):
        journal.verify()


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    first = Journal.open(tmp_path / "j.db")
    first.propose(STUDY, "operator")
    head = first.head()
    first.close()
    again = Journal.open(tmp_path / "j.db")
    again.note(AuditRecord(0, 9.0, "coordinator", "started"))
    again.verify(anchor=head)
    again.close()
