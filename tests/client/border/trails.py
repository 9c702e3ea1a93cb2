"""A site's state with a trail, to be manipulated: no node, no clock but the one given."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from larrey_client.records import Answered
from larrey_client.store import DATABASE, SiteStore
from larrey_client.trail import Seal
from larrey_protocol.audit import AuditRecord, append_record
from larrey_protocol.canonical import canonical_json
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Receipt, sign

KEY = SigningKey.generate()
STUDY = "sha256:" + "a" * 64
NOW = 1_700_000_000.0


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def open_store(folder: Path) -> SiteStore:
    store = SiteStore.open(folder, lambda: NOW)
    store.on_audit = Seal(store, "alpha", KEY, lambda: NOW).write
    return store


def receipt(store: SiteStore, number: int) -> bytes:
    made = Receipt(
        study=STUDY, site="alpha", round=number, phase="train", model_in=digest(number),
        update=digest(100 + number), update_bytes=99, epsilon=1.0, delta=1e-5, accountant="pld",
        ledger_head=store.ledger_head, audit_head=store.audit_head, permit=digest(7), at=NOW,
    )  # fmt: skip
    return sign(made, KEY).to_bytes()


def make_trail(folder: Path, *, rounds: int = 2, after: int = 2) -> None:
    """Write a state with two records and one receipt a round, and records after the last."""
    store = open_store(folder)
    for number in range(1, rounds + 1):
        with store.transaction():
            store.audit("round-reserved", "alpha", study=STUDY, round=number)
            update = digest(100 + number)
            store.audit("update-released", "alpha", study=STUDY, round=number, subject=update)
            answered = Answered(update, 99, receipt(store, number))
            store.add_answer((STUDY, number, "train", digest(number)), answered)
    for number in range(after):
        with store.transaction():
            store.audit("request-refused", "alpha", round=number, code="deadline-passed")
    store.close()


def rewrite(folder: Path, change: Callable[[list[AuditRecord]], Iterable[AuditRecord]]) -> None:
    """Replace the trail in the file, as somebody with the node's account could."""
    with sqlite3.connect(folder / DATABASE) as db:
        rows = db.execute("SELECT record FROM audit ORDER BY seq").fetchall()
        records = list(change([AuditRecord(**json.loads(row)) for (row,) in rows]))
        for verb in ("update", "delete", "replace"):
            db.execute(f"DROP TRIGGER IF EXISTS audit_no_{verb}")
        db.execute("DELETE FROM audit")
        db.executemany(
            "INSERT INTO audit VALUES (?, ?)",
            [(number, canonical_json(asdict(one))) for number, one in enumerate(records, 1)],
        )
    db.close()


def chained(records: Iterable[AuditRecord]) -> list[AuditRecord]:
    """Return the records as an intact chain of their own."""
    made: list[AuditRecord] = []
    for record in records:
        made.append(append_record(made[-1] if made else None, record))
    return made
