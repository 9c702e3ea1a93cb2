"""The ledger's chain in a site's SQLite file: appended, read, verified; no rule and no number.

The table takes appends only: triggers refuse everything else. Every start reads the whole chain and
replays every rule.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from larrey_privacy.ledger import Entry, Kind, LedgerState, entry_bytes, replay
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import IntegrityError, Refusal, UsageError

__all__ = ["append", "create", "head", "load", "stored_hash"]

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS privacy_ledger (
        seq INTEGER PRIMARY KEY, entry BLOB NOT NULL, hash TEXT NOT NULL
    ) STRICT""",
    # Only ADOPT jumps: over the numbers of a lost tail.
    """CREATE TRIGGER IF NOT EXISTS privacy_ledger_append BEFORE INSERT ON privacy_ledger
        WHEN NEW.seq <= (SELECT coalesce(max(seq), 0) FROM privacy_ledger)
        OR (NEW.seq > (SELECT coalesce(max(seq), 0) + 1 FROM privacy_ledger)
            AND NOT instr(NEW.entry, CAST('"kind":"adopt"' AS BLOB)))
        BEGIN SELECT RAISE(ABORT, 'the privacy ledger takes appends only'); END""",
    """CREATE TRIGGER IF NOT EXISTS privacy_ledger_no_update BEFORE UPDATE ON privacy_ledger
        BEGIN SELECT RAISE(ABORT, 'the privacy ledger takes appends only'); END""",
    """CREATE TRIGGER IF NOT EXISTS privacy_ledger_no_delete BEFORE DELETE ON privacy_ledger
        BEGIN SELECT RAISE(ABORT, 'the privacy ledger takes appends only'); END""",
)


def create(connection: sqlite3.Connection) -> None:
    """Make the table and its triggers where they are missing.

    Raises:
        IntegrityError: ``ledger-damaged`` when the file is not a readable database.
    """
    try:
        for statement in _SCHEMA:
            connection.execute(statement)
    except sqlite3.DatabaseError as error:
        raise _damaged("the database cannot be read") from error


def load(connection: sqlite3.Connection) -> LedgerState:
    """Return the balances after every entry.

    Raises:
        IntegrityError: ``ledger-damaged`` when an entry, the chain or a rule does not hold.
    """
    try:
        return replay(_entries(connection))
    except (sqlite3.DatabaseError, Refusal, UsageError, KeyError, TypeError, ValueError) as error:
        raise _damaged("an entry breaks a rule or cannot be read") from error


def append(connection: sqlite3.Connection, entry: Entry) -> None:
    """Write one entry in the caller's transaction."""
    connection.execute(
        "INSERT INTO privacy_ledger (seq, entry, hash) VALUES (?, ?, ?)",
        (entry.seq, entry_bytes(entry), entry.hash),
    )


def head(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return number and hash of the last stored entry."""
    row = connection.execute(
        "SELECT seq, hash FROM privacy_ledger ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return row or (0, LedgerState().hash)


def stored_hash(connection: sqlite3.Connection, seq: int) -> str:
    """Return the hash of the entry of that number, empty if there is none."""
    row = connection.execute("SELECT hash FROM privacy_ledger WHERE seq = ?", (seq,)).fetchone()
    return str(row[0]) if row else ""


def _entries(connection: sqlite3.Connection) -> Iterator[Entry]:
    rows = connection.execute("SELECT seq, entry, hash FROM privacy_ledger ORDER BY seq")
    for seq, data, digest in rows:
        content = json.loads(data)
        entry = Entry(
            seq=content["seq"],
            kind=Kind(content["kind"]),
            dataset=content["dataset"],
            body=content["body"],
            at=content["at"],
            previous=content["previous"],
            hash=digest,
        )
        if entry.seq != seq or entry_bytes(entry) != data or digest_bytes(data) != digest:
            raise _damaged(f"entry {seq} is not what its hash says")
        yield entry


def _damaged(found: str) -> IntegrityError:
    return IntegrityError(
        "ledger-damaged",
        f"the privacy ledger does not verify: {found}.",
        "Keep the file as evidence and restore the newest copy of the site's state.",
    )
