"""The opposition list: patients who object to the use of their data. Local; it never leaves.

One SQLite file in the state folder, mode 0600, appends only. It holds keyed hashes of identifiers,
never identifiers, and is bitemporal: each entry has the day from which it holds and the moment at
which it was recorded, so that one can say who was excluded from a round and what was known then.
Not retroactive by law for data permits (Regulation (EU) 2025/327, article 71); an objection under
article 21 of Regulation (EU) 2016/679 counts at once: the study's contract says which.
"""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from larrey_client.data.identity import HASH_BYTES
from larrey_protocol.errors import DataError

__all__ = ["Entry", "Kind", "append", "day_of", "entries", "excluded", "strictest"]

Kind = Literal["oppose", "withdraw"]
AsOf = Literal["permit", "round", "none"]
_FILE = "opposition.db"
_PATIENCE_S = 10.0
_LOOSE_TO_STRICT: tuple[AsOf, ...] = ("none", "permit", "round")
_TABLE = f"""
    CREATE TABLE IF NOT EXISTS entries (
        seq INTEGER PRIMARY KEY,
        patient BLOB NOT NULL CHECK (length(patient) = {HASH_BYTES}),
        kind TEXT NOT NULL CHECK (kind IN ('oppose', 'withdraw')),
        valid_from TEXT NOT NULL,
        recorded_at REAL NOT NULL,
        actor TEXT NOT NULL
    ) STRICT
"""
_GUARDS = {
    "update": "BEFORE UPDATE ON entries",
    "delete": "BEFORE DELETE ON entries",
    "replace": "BEFORE INSERT ON entries WHEN EXISTS (SELECT 1 FROM entries WHERE seq = NEW.seq)",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """An objection, or its withdrawal.

    Attributes:
        patient: hash of the identifier (`identity.patient_hash`).
        kind: "oppose" or "withdraw".
        valid_from: first day on which it holds, in UTC.
        recorded_at: seconds since 1970.
        actor: account of the person who recorded it.
    """

    patient: bytes
    kind: Kind
    valid_from: dt.date
    recorded_at: float
    actor: str = ""


def excluded(entries: Iterable[Entry], as_of: dt.date, known_at: float) -> frozenset[bytes]:
    """Return who objects on a day, as far as it was on record at a moment.

    Of a patient's entries that hold on the day, the one with the latest first day decides; of
    several with that day, the one recorded last.

    Args:
        entries: in the order of recording.
        as_of: the permit's day, or the round's.
        known_at: seconds since 1970; what was recorded later does not count.
    """
    last: dict[bytes, Entry] = {}
    for entry in entries:
        if entry.valid_from > as_of or entry.recorded_at > known_at:
            continue
        before = last.get(entry.patient)
        if before is None or _rank(before) <= _rank(entry):
            last[entry.patient] = entry
    return frozenset(patient for patient, entry in last.items() if entry.kind == "oppose")


def strictest(*rules: AsOf) -> AsOf:
    """Return the rule that heeds most objections: "round" before "permit" before "none"."""
    return max(rules, key=_LOOSE_TO_STRICT.index)


def day_of(at: float) -> dt.date:
    """Return the day of a moment, in UTC."""
    return dt.datetime.fromtimestamp(at, tz=dt.UTC).date()


def entries(state: Path) -> list[Entry]:
    """Return the list of a state folder in the order of recording; empty if there is none.

    Raises:
        DataError: ``opposition-unreadable``; nothing may be trained on then.
    """
    if not (state / _FILE).exists():
        return []
    with _open(state) as connection:
        rows = connection.execute(
            "SELECT patient, kind, valid_from, recorded_at, actor FROM entries ORDER BY seq"
        ).fetchall()
        return [
            Entry(bytes(patient), kind, dt.date.fromisoformat(day), at, actor)
            for patient, kind, day, at, actor in rows
        ]


def append(state: Path, made: Collection[Entry]) -> None:
    """Add entries, durably and all or none; the file is made if it is new.

    Raises:
        DataError: ``opposition-unreadable``.
    """
    if not (state / _FILE).exists():
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(state / _FILE, os.O_RDWR | os.O_CREAT, 0o600))
    rows = [
        (entry.patient, entry.kind, entry.valid_from.isoformat(), entry.recorded_at, entry.actor)
        for entry in made
    ]
    with _open(state) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO entries (patient, kind, valid_from, recorded_at, actor)"
            " VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        connection.execute("COMMIT")


@contextmanager
def _open(state: Path) -> Iterator[sqlite3.Connection]:
    path = state / _FILE
    try:
        with closing(
            sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_TABLE)
            for name, guard in _GUARDS.items():
                connection.execute(
                    f"CREATE TRIGGER IF NOT EXISTS entries_no_{name} {guard}"
                    " BEGIN SELECT RAISE(ABORT, 'entries takes appends only'); END"
                )
            yield connection
    except (sqlite3.Error, ValueError) as error:
        raise DataError(
            "opposition-unreadable",
            f"the opposition list {path} cannot be used ({type(error).__name__})",
            "Restore it from a backup; until then nothing is trained here.",
        ) from error


def _rank(entry: Entry) -> tuple[dt.date, float]:
    return entry.valid_from, entry.recorded_at
