"""The site's state folder: appends only, one writer, private, verified."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_client.records import Answered
from larrey_client.store import SiteStore, open_readonly
from larrey_protocol.errors import IntegrityError, LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.roster import Roster
from larrey_protocol.signed import sign

KEY = ("sha256:s", 1, "train", "sha256:m")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SiteStore]:
    opened = SiteStore.open(tmp_path / "state", lambda: 12.0)
    yield opened
    opened.close()


def fill(store: SiteStore) -> None:
    with store.transaction():
        store.audit("study-approved", "alice", study="sha256:s")
        store.add_answer(KEY, Answered("sha256:u", 3, b"receipt"))


def half_done(store: SiteStore) -> None:
    store.audit("half", "alice")
    store.add_answer(KEY, Answered("sha256:other", 3, b""))  # there is one already


@pytest.mark.parametrize("verb", ["UPDATE {} SET at = 1", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["answers", "audit"])
def test_a_row_can_be_neither_changed_nor_deleted(store: SiteStore, table: str, verb: str) -> None:
    fill(store)
    statement = verb.format(table).replace("audit SET at", "audit SET seq")
    with pytest.raises(sqlite3.IntegrityError, match="appends only"):
        store.records.connection.execute(statement)


@pytest.mark.parametrize("table", ["answers", "audit"])
def test_a_row_cannot_be_replaced(store: SiteStore, table: str) -> None:
    fill(store)
    with pytest.raises(sqlite3.IntegrityError, match="appends only"):
        store.records.connection.execute(f"REPLACE INTO {table} SELECT * FROM {table}")


def test_an_answer_is_given_once_and_for_ever(store: SiteStore) -> None:
    fill(store)
    assert store.records.answer(KEY) == Answered("sha256:u", 3, b"receipt")
    with pytest.raises(sqlite3.IntegrityError), store.transaction():
        store.add_answer(KEY, Answered("sha256:other", 3, b""))


def test_a_failed_transaction_leaves_nothing_behind(store: SiteStore) -> None:
    fill(store)
    head = store.audit_head
    with pytest.raises(sqlite3.Error), store.transaction():
        half_done(store)
    assert store.audit_head == head
    with store.transaction():
        store.audit("whole", "alice")
    assert [record.action for record in store.records.audit()] == ["study-approved", "whole"]


def test_a_second_node_on_the_same_state_is_refused(store: SiteStore) -> None:
    with pytest.raises(LarreyError, match="state-locked"):
        SiteStore.open(store.folder, lambda: 0.0)


def test_state_is_readable_by_its_owner_only(store: SiteStore) -> None:
    store.secret()
    modes = {path.name: path.stat().st_mode & 0o777 for path in store.folder.iterdir()}
    assert modes["spool"] == 0o700
    assert {modes["site.db"], modes["salt"]} == {0o600}


def test_an_altered_audit_record_stops_the_node(store: SiteStore) -> None:
    fill(store)
    connection = store.records.connection
    connection.execute("DROP TRIGGER audit_no_update")
    connection.execute("UPDATE audit SET record = CAST(replace(record, 'alice', 'mallo') AS BLOB)")
    store.close()
    with pytest.raises(IntegrityError, match="audit-broken"):
        SiteStore.open(store.folder, lambda: 0.0)


def test_a_reader_cannot_write(store: SiteStore) -> None:
    fill(store)
    reader = open_readonly(store.folder)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("INSERT INTO endings VALUES ('x', 1)")
    reader.close()


def test_what_a_kill_left_in_the_spool_is_no_answer_and_goes(store: SiteStore) -> None:
    fill(store)
    for name in ("u", "neither-signed-nor-sent", "part"):
        (store.spool / name).write_bytes(b"abc")
    store.close()
    again = SiteStore.open(store.folder, lambda: 0.0, is_adopting=True)
    assert [path.name for path in again.spool.iterdir()] == ["u"]
    again.close()


def test_a_commit_that_failed_is_a_change_to_whoever_read_within_it(store: SiteStore) -> None:
    seen = []

    def fail() -> None:
        with store.transaction():
            store.add_document(sign(Roster(version=1, issued_at=0.0), SigningKey.generate()))
            seen.append(store.revision)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.revision not in seen
