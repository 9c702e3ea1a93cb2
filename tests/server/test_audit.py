"""The coordinator's trail: every manipulation is found, every difference to a site's is named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from larrey_protocol.access_log import AccessLog
from larrey_protocol.audit import AuditRecord, append_record
from larrey_protocol.errors import IntegrityError, UsageError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Certificate, Receipt, Signed, sign
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.cli import main
from larrey_server.journal import AnswerRow, ContributionRow, Journal, StudyRow, Transition
from larrey_server.round_values import Cell
from larrey_server.seal import SEAL, Seal
from larrey_server.trail import Difference, Trail, query, read_trail, reconcile, told, verify
from tests.server.peers import Federation, until

KEY, COORDINATOR = SigningKey.generate(), SigningKey.generate()
DIGEST = "sha256:" + "1" * 64
PHASES = ("train", "evaluate")
STUDY = StudyRow(DIGEST, "sketch", b"signed proposal", "proposed", 5.0)
Change = Callable[[list[AuditRecord]], list[AuditRecord]]


def chained(records: list[AuditRecord]) -> list[AuditRecord]:
    made: list[AuditRecord] = []
    for record in records:
        made.append(append_record(made[-1] if made else None, record))
    return made


class Both:
    """A coordinator's journal and a site's trail of the same two rounds."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "coordinator.db"
        self.site: list[AuditRecord] = []
        self.receipts: list[Signed] = []
        journal = Journal.open(self.path)
        journal.on_audit = Seal(folder, COORDINATOR, lambda: 9.0).write
        journal.propose(STUDY, "ada")
        self.note("study-approved")
        journal.answer(DIGEST, AnswerRow("alpha", "approved", "", b"signed"), 5.5)
        for number in (1, 2):
            self.note("round-reserved", number)
            self.note("update-released", number)
            signed = [self.receipt(number, journal.head(), phase=phase) for phase in PHASES]
            self.receipts += signed
            cell = Cell("alpha", number, 1, "contributed", nbytes=8)
            record = AuditRecord(0, 6.0 + number, "coordinator", "round-applied", DIGEST, number)
            row = ContributionRow(cell, tuple(one.to_bytes() for one in signed))
            journal.commit(Transition(DIGEST, {"round": number}, record, (row,)))
        self.trail = read_trail(told(journal))
        journal.close()

    def note(self, action: str, number: int = 0) -> None:
        draft = AuditRecord(0, 1.0, "alpha", action, DIGEST, number)
        self.site.append(append_record(self.site[-1] if self.site else None, draft))

    def receipt(
        self, number: int, peer_head: str, update: str = DIGEST, phase: str = "train"
    ) -> Signed:
        made = Receipt(
            study=DIGEST, site="alpha", round=number, phase=phase, model_in=DIGEST,
            update=update, update_bytes=8, epsilon=1.0, delta=1e-5, accountant="pld",
            ledger_head="0:", audit_head=self.site[-1].head, peer_head=peer_head, at=1.0,
        )  # fmt: skip
        return sign(made, KEY)

    def export(self, **changes: Any) -> dict[str, Any]:
        return {
            "site": "alpha",
            "key": KEY.public,
            "records": [asdict(record) for record in self.site],
            "receipts": [json.loads(one.to_bytes()) for one in self.receipts],
        } | changes


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


def altered(trail: Trail, change: Change) -> Trail:
    return replace(trail, records=tuple(change(list(trail.records))))


def named(found: list[Difference]) -> set[tuple[str, str, int, int]]:
    return {(one.kind, one.what, one.round, one.index) for one in found}


def test_an_untouched_trail_is_whole_and_agrees_with_the_site(both: Both) -> None:
    assert verify(both.trail)["audit_records"] == 4
    assert verify(both.trail)["signed_heads"] == 4
    assert reconcile(both.trail, both.export()) == []


@pytest.mark.parametrize(
    ("change", "code", "number"),
    [
        (lambda r: [r[0], replace(r[1], actor="beta"), *r[2:]], "audit-broken", 2),
        (lambda r: r[:1] + r[2:], "audit-broken", 2),
        (lambda r: [r[0], r[2], r[1], r[3]], "audit-broken", 2),
        (lambda r: r[:2], "audit-behind-anchor", 3),  # cut: the second receipt saw record 3
        (lambda r: chained([r[0], replace(r[1], actor="beta"), *r[2:]]), "audit-behind-anchor", 2),
        (lambda r: chained(r[1:]), "audit-behind-anchor", 2),
    ],
)
def test_a_manipulation_is_found_with_its_number(
    both: Both, change: Change, code: str, number: int
) -> None:
    with pytest.raises(IntegrityError, match=rf"\b{number}\b") as found:
        verify(altered(both.trail, change))
    assert found.value.code == code


def test_a_cut_after_the_last_signed_head_shows_at_the_next_site(both: Both) -> None:
    cut = altered(both.trail, lambda records: records[:3])
    assert verify(cut)["audit_records"] == 3  # no receipt has seen record 4 yet
    both.receipts.append(both.receipt(3, both.trail.records[3].head))
    assert ("missing", "record", 3, 4) in named(reconcile(cut, both.export()))


def test_a_cut_of_any_length_is_found_by_the_seal_with_its_number(
    both: Both, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", "verify", "--state", str(tmp_path)]
    assert main(words) == 0
    with sqlite3.connect(both.path) as db:
        db.execute("DROP TRIGGER audit_no_delete")
        db.execute("DELETE FROM audit WHERE seq = 4")
    db.close()
    assert main(words) == 1
    assert "record 4 of the audit trail was signed" in capsys.readouterr().err


def test_an_older_seal_is_met_by_the_longer_trail(both: Both, tmp_path: Path) -> None:
    Seal(tmp_path, COORDINATOR, lambda: 9.0).write(both.trail.records[1].head)
    assert main(["audit", "verify", "--state", str(tmp_path)]) == 0


@pytest.mark.parametrize("damage", [b"", b"no seal", b'{"kind": "anchor"}'])
def test_a_seal_that_is_gone_or_none_is_found(
    both: Both, tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / SEAL).write_bytes(damage)
    assert main(["audit", "verify", "--state", str(tmp_path)]) == 1
    told_ = capsys.readouterr().err
    assert ("malformed-document" if damage else "seal-missing") in told_


def test_the_seal_is_of_who_certifies_studies(both: Both, tmp_path: Path) -> None:
    sealed = Signed.from_bytes((tmp_path / SEAL).read_bytes())
    made = Certificate(
        study=DIGEST, name="sketch", outcome="COMPLETE", rounds_planned=2, rounds_applied=2,
        sites=("alpha",), matrix=(), audit_head=both.trail.records[3].head, ended_at=9.0,
    )  # fmt: skip
    ours = replace(both.trail, seal=sealed, certificates=(sign(made, COORDINATOR),))
    assert verify(ours, needs_seal=True)["signed_heads"] == 6
    with pytest.raises(IntegrityError, match="wrong-signer"):
        verify(replace(ours, certificates=(sign(made, KEY),)), needs_seal=True)


def test_a_receipt_that_the_coordinator_dropped_is_missing(both: Both) -> None:
    dropped = replace(both.trail, contributions=both.trail.contributions[:1])
    assert named(reconcile(dropped, both.export())) == {("missing", "receipt", 2, 5)}


@pytest.mark.parametrize("phase", PHASES)
def test_a_receipt_of_any_phase_that_the_coordinator_dropped_is_missing(
    both: Both, phase: str
) -> None:
    last = both.trail.contributions[1]
    kept = replace(last, receipts=(last.receipts[1 - PHASES.index(phase)],))
    trail = replace(both.trail, contributions=(both.trail.contributions[0], kept))
    (found,) = reconcile(trail, both.export())
    assert (found.kind, found.what, found.round) == ("missing", "receipt", 2)
    assert found.text.startswith(f"{phase}: ")


def test_two_receipts_of_a_later_phase_are_different(both: Both) -> None:
    head, other = both.trail.records[2].head, "sha256:" + "2" * 64
    both.receipts[3] = both.receipt(2, head, update=other, phase="evaluate")
    assert named(reconcile(both.trail, both.export())) == {("different", "receipt", 2, 5)}


def test_an_approval_for_another_consortium_is_no_difference(both: Both) -> None:
    other = "sha256:" + "3" * 64
    both.site.append(append_record(
        both.site[-1], AuditRecord(0, 1.0, "ada", "study-approved", other)
    ))  # fmt: skip
    assert named(reconcile(both.trail, both.export())) == {("missing", "approval", 0, 6)}
    assert reconcile(both.trail, both.export(elsewhere=[other])) == []


def test_a_receipt_of_a_round_that_did_not_count_is_no_difference(both: Both) -> None:
    late = replace(both.trail.contributions[1], outcome="late", receipts=())
    trail = replace(both.trail, contributions=(both.trail.contributions[0], late))
    assert reconcile(trail, both.export()) == []


def test_a_receipt_of_a_round_that_is_still_open_is_no_difference(both: Both) -> None:
    both.receipts.append(both.receipt(3, both.trail.records[3].head))
    assert reconcile(both.trail, both.export()) == []


def test_a_receipt_that_the_site_does_not_have_is_extra(both: Both) -> None:
    receipts = [json.loads(one.to_bytes()) for one in both.receipts[:2]]
    found = reconcile(both.trail, both.export(receipts=receipts))
    assert named(found) == {("extra", "receipt", 2, 5)}


def test_two_receipts_for_one_piece_of_work_are_different(both: Both) -> None:
    other = both.receipt(2, both.trail.records[2].head, update="sha256:" + "2" * 64)
    both.receipts[2] = other
    assert named(reconcile(both.trail, both.export())) == {("different", "receipt", 2, 5)}


def test_a_site_that_cut_its_trail_is_named_with_the_record(both: Both) -> None:
    records = [asdict(record) for record in both.site[:4]]
    assert ("extra", "record", 2, 5) in named(reconcile(both.trail, both.export(records=records)))


def test_an_approval_that_only_one_side_knows_is_named(both: Both) -> None:
    others = [r for r in both.trail.records if r.action != "study-approved"]
    without = replace(both.trail, records=tuple(chained(others)))
    assert ("missing", "approval", 0, 1) in named(reconcile(without, both.export()))
    site = chained([r for r in both.site if r.action != "study-approved"])
    found = reconcile(both.trail, both.export(records=[asdict(r) for r in site]))
    assert ("extra", "approval", 0, 2) in named(found)


@pytest.mark.parametrize("export", [{}, {"records": 1}, {"site": "a", "key": "k", "records": [7]}])
def test_a_file_that_no_site_exported_is_refused(both: Both, export: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError) as found:
        reconcile(both.trail, export)
    assert found.value.code == "malformed-document"


def test_a_receipt_under_another_key_is_refused(both: Both) -> None:
    with pytest.raises(IntegrityError) as found:
        reconcile(both.trail, both.export(key=SigningKey.generate().public))
    assert found.value.code == "wrong-signer"


def test_a_question_gets_the_records_it_asked_for(both: Both) -> None:
    assert [row["seq"] for row in query(both.trail, action="round-applied")] == [3, 4]
    assert [row["seq"] for row in query(both.trail, actor="alpha")] == [2]
    assert [row["seq"] for row in query(both.trail, study=DIGEST[:19], since=7.0)] == [3, 4]


def test_a_copied_state_folder_is_read_and_not_written(
    both: Both, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = both.path.read_bytes()
    assert main(["audit", "verify", "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_intact"] is True
    assert both.path.read_bytes() == before
    with pytest.raises(UsageError, match="no coordinator ever ran"):
        Journal.look(tmp_path / "other.db")


def test_reconcile_ends_with_one_where_something_differs(
    both: Both, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "trail.json"
    words = ["audit", "reconcile", "--state", str(tmp_path), "--site-trail", str(file)]
    file.write_text(json.dumps(both.export()))
    assert main(words) == 0
    file.write_text(json.dumps(both.export(receipts=[])))
    assert main(words) == 1
    assert "round 2 record 5" in capsys.readouterr().out
    file.write_text("no JSON")
    assert main(words) == 2


def test_an_edited_file_is_found_by_the_command(
    both: Both, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(both.path) as db:
        db.execute("DROP TRIGGER audit_no_update")
        db.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 3")
    db.close()
    assert main(["audit", "verify", "--state", str(tmp_path)]) == 1
    assert "record 3" in capsys.readouterr().err


def test_operators_read_the_trail_and_their_calls_are_on_record(
    federation: Federation,
) -> None:
    with federation.operator() as operator:
        trail = read_trail(operator.audit())
        assert verify(trail, needs_seal=True)["signed_heads"] == 1  # nobody worked yet
        operator.list()
    rows = accesses(federation, 2)
    assert [(row["verb"], row["code"]) for row in rows] == [("Audit", "ok"), ("List", "ok")]


def test_a_refused_call_is_on_record_under_the_caller_s_name(federation: Federation) -> None:
    credential, _ = federation.folder.sites["alpha"]
    with federation.channel(credential) as channel:
        control = stubs.ControlStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError):
            control.List(wire.ListStudiesRequest(), timeout=5)
    (row,) = accesses(federation, 1)
    assert (row["actor"], row["verb"], row["code"]) == ("alpha", "List", "permission-denied")


def accesses(federation: Federation, count: int) -> list[dict[str, Any]]:
    """Return the lines of the access log; a line follows its answer."""
    log = AccessLog(federation.hub.coordinator.state)
    until(lambda: len(log.rows()) >= count)
    return log.rows()
