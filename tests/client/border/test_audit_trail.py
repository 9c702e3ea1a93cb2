"""Edit, delete, reorder, truncate: each is found, with the record's number."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from larrey_client.store import open_readonly
from larrey_client.trail import SEAL, Asked, export, query, verify_trail
from larrey_protocol.audit import AuditRecord
from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import SigningKey
from tests.client.border.trails import (
    KEY,
    NOW,
    STUDY,
    chained,
    digest,
    make_trail,
    open_store,
    rewrite,
)

Change = Callable[[list[AuditRecord]], Iterable[AuditRecord]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_trail(tmp_path)  # six records; receipts sign for 2 and 4
    return tmp_path


def verify(folder: Path) -> dict[str, object]:
    connection = open_readonly(folder)
    try:
        return verify_trail(connection, folder, KEY.public)
    finally:
        connection.close()


def test_an_untouched_trail_is_whole_and_meets_every_signature(folder: Path) -> None:
    found = verify(folder)
    assert (found["audit_records"], found["signed_heads"]) == (6, 3)


def _edited(records: list[AuditRecord]) -> list[AuditRecord]:
    return [replace(r, actor="nobody") if r.seq == 3 else r for r in records]


def _swapped(records: list[AuditRecord]) -> list[AuditRecord]:
    return [*records[:2], records[3], records[2], *records[4:]]


@pytest.mark.parametrize(
    ("change", "code", "number"),
    [
        (_edited, "audit-broken", 3),
        (lambda r: r[:2] + r[3:], "audit-broken", 3),  # deleted
        (lambda r: r[1:], "audit-broken", 1),
        (_swapped, "audit-broken", 3),
        (lambda r: r[:5] + r[4:], "audit-broken", 6),  # shown twice
        (lambda r: chained(_edited(r)), "audit-behind-anchor", 4),  # and all hashes made anew
        (lambda r: chained(r[:2] + r[3:]), "audit-behind-anchor", 4),
        (lambda r: chained(_swapped(r)), "audit-behind-anchor", 4),
        (lambda r: r[:3], "audit-behind-anchor", 4),  # truncated
        (lambda r: r[:5], "audit-behind-anchor", 6),  # after the newest receipt
        (lambda r: chained([*r[:5], replace(r[5], code="other")]), "audit-behind-anchor", 6),
        (lambda _: [], "audit-behind-anchor", 2),
    ],
)  # fmt: skip
def test_a_manipulation_is_found_with_its_number(
    folder: Path, change: Change, code: str, number: int
) -> None:
    rewrite(folder, change)
    with pytest.raises(IntegrityError, match=rf"\b{number}\b") as found:
        verify(folder)
    assert found.value.code == code


def test_a_seal_that_is_gone_or_of_another_key_is_found(folder: Path) -> None:
    (folder / SEAL).rename(folder / "away")
    with pytest.raises(IntegrityError, match="signed head") as missing:
        verify(folder)
    assert missing.value.code == "seal-missing"
    (folder / "away").rename(folder / SEAL)
    text = (folder / SEAL).read_text().replace(KEY.public, SigningKey.generate().public)
    (folder / SEAL).write_text(text)
    with pytest.raises(IntegrityError, match="unexpected key"):
        verify(folder)


def test_an_older_seal_is_met_by_the_longer_trail(folder: Path) -> None:
    seal = (folder / SEAL).read_bytes()
    store = open_store(folder)
    with store.transaction():
        store.audit("study-ended", "coordinator", study=STUDY)
    store.close()
    (folder / SEAL).write_bytes(seal)  # as after a power cut
    assert verify(folder)["audit_records"] == 7


def test_a_commit_without_an_audit_record_makes_no_seal(folder: Path) -> None:
    store, seal = open_store(folder), (folder / SEAL).stat().st_mtime_ns
    with store.transaction():
        store.add_ending(STUDY)
    store.close()
    assert (folder / SEAL).stat().st_mtime_ns == seal


def rows(folder: Path, asked: Asked) -> list[dict[str, object]]:
    connection: sqlite3.Connection = open_readonly(folder)
    try:
        return query(connection, asked)
    finally:
        connection.close()


def test_the_trail_says_under_which_permit_what_left(folder: Path) -> None:
    (row,) = [one for one in rows(folder, Asked(action="update-released")) if one["round"] == 2]
    assert (row["permit"], row["epsilon"], row["subject"]) == (digest(7), 1.0, digest(102))
    assert (row["actor"], row["at"], row["study"]) == ("alpha", NOW, STUDY)


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (Asked(), 6),
        (Asked(study=STUDY[:19]), 4),
        (Asked(study=STUDY[:11]), 0),  # too few digits to be one
        (Asked(dataset="heart"), 0),
        (Asked(action="round-reserved"), 2),
        (Asked(actor="policy"), 0),
        (Asked(since=NOW), 6),
        (Asked(since=NOW + 1), 0),
        (Asked(until=NOW), 0),
    ],
)
def test_a_question_gets_what_was_asked_for(folder: Path, asked: Asked, count: int) -> None:
    assert len(rows(folder, asked)) == count


def test_the_copy_for_the_coordinator_holds_trail_receipts_and_seal(folder: Path) -> None:
    connection = open_readonly(folder)
    made = export(connection, folder, "alpha", KEY.public)
    connection.close()
    assert (made["site"], len(made["records"]), len(made["receipts"])) == ("alpha", 6, 2)
    assert made["seal"]["kind"] == "anchor"
