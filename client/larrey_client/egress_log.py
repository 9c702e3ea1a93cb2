"""What left this site, byte for byte, in a file of its own: ``egress.db`` in the state folder.

A row is written before its message is sent, so that the log may hold what never arrived and never
lacks what did. Polls without work are counted by digest and hour. Payloads stay under their digest
until `purge`; updates as a second name of the spooled file, so that nothing is copied.

Write-ahead log with synchronous=NORMAL: a killed node loses nothing; a power cut may lose the last
rows, whose answers, receipts and audit records are durable in site.db. One more flush a message
would double what a round costs.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larrey_protocol.errors import UsageError

__all__ = ["DATABASE", "EgressLog", "Logged", "Sent", "open_log", "unaccounted"]

DATABASE = "egress.db"
_FOLDER = "egress"  # of payloads too large for the database
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, method TEXT NOT NULL, study TEXT NOT NULL,
    round INTEGER NOT NULL, phase TEXT NOT NULL, code TEXT NOT NULL, bytes INTEGER NOT NULL,
    digest TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS polls (
    method TEXT, digest TEXT, hour INTEGER, count INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (method, digest, hour)) STRICT;
CREATE TABLE IF NOT EXISTS payloads (
    digest TEXT PRIMARY KEY, study TEXT NOT NULL, at REAL NOT NULL, data BLOB) STRICT;
CREATE INDEX IF NOT EXISTS messages_of_study ON messages (study, seq);
"""
_WRITE = "INSERT INTO messages VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
_KEEP = "INSERT OR IGNORE INTO payloads VALUES (?, ?, ?, ?)"
_CACHE = "cache_size = -512"  # KiB of pages in memory: what is logged is seldom read again
_DAY_S = 86400.0
_HOUR_S = 3600
_MOST_POLLS = 1000  # different ones an hour; an honest coordinator causes a handful

Json = dict[str, Any]  # Any: JSON values are recursive


@dataclass(frozen=True, slots=True)
class Sent:
    """One message that left, or was about to.

    Attributes:
        bytes: of the serialized request; of all its parts where it is a stream.
        digest: of the serialized request; of the whole blob where it is a stream.
    """

    at: float
    method: str
    study: str
    round: int
    phase: str
    code: str
    bytes: int
    digest: str


_COLUMNS = tuple(Sent.__dataclass_fields__)


class EgressLog:
    """The log of one node; several threads may use it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        descriptor = os.open(folder / DATABASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        (folder / _FOLDER).mkdir(mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._hour, self._polled = 0, set[str]()  # digests of this hour's polls
        self._connection = sqlite3.connect(
            folder / DATABASE, isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", _CACHE):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, sent: Sent, payload: bytes | None = None) -> int:
        """Write one message down and return its number; None keeps no payload."""
        with self._writing() as db:
            if payload is not None:
                db.execute(_KEEP, (sent.digest, sent.study, sent.at, payload))
            return _add(db, sent)

    def add_blob(self, sent: Sent, path: Path) -> int:
        """Write a stream and its first part down; the file at ``path`` is its payload."""
        with suppress(FileExistsError, FileNotFoundError):
            os.link(path, self._blob(sent.digest))
        with self._writing() as db:
            db.execute(_KEEP, (sent.digest, sent.study, sent.at, None))
            return _add(db, sent)

    def count_part(self, seq: int, size: int) -> None:
        """Add a further part to a stream that is under way."""
        with self._lock:
            self._connection.execute(
                "UPDATE messages SET bytes = bytes + ? WHERE seq = ?", (size, seq)
            )

    def poll(self, sent: Sent, payload: bytes) -> None:
        """Count a message that says the same nearly every time.

        A coordinator that has it change without end gets one row for the rest of the hour, whose
        digest is empty: what such a message says is a number that the coordinator gave.
        """
        hour = int(sent.at) // _HOUR_S * _HOUR_S
        with self._writing() as db:
            if hour != self._hour:
                self._hour = hour
                self._polled.clear()
            is_listed = sent.digest in self._polled or len(self._polled) < _MOST_POLLS
            if is_listed:
                self._polled.add(sent.digest)
            db.execute(
                "INSERT INTO polls VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE"
                " SET count = count + 1, bytes = bytes + excluded.bytes",
                (sent.method, sent.digest if is_listed else "", hour, sent.bytes),
            )
            if is_listed:
                db.execute(_KEEP, (sent.digest, "", sent.at, payload))

    def purge(self, *, now: float, days: float, closed: Iterable[str] = ()) -> int:
        """Drop payloads of closed studies and those older than ``days``; return how many.

        Rows with their digests stay. Whoever holds the trail of an incident does not call this.
        """
        with self._lock:
            found = self._connection.execute(
                "SELECT digest FROM payloads WHERE at < ?1 OR (study != '' AND study IN"
                " (SELECT value FROM json_each(?2)))",
                (now - days * _DAY_S, json.dumps([*closed])),
            ).fetchall()
            for (digest,) in found:
                self._blob(digest).unlink(missing_ok=True)
            self._connection.executemany("DELETE FROM payloads WHERE digest = ?", found)
            return len(found)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Make what happens inside one commit, or nothing; each commit writes to the file."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    def _blob(self, digest: str) -> Path:
        return self._folder / _FOLDER / digest.removeprefix("sha256:")


def _add(db: sqlite3.Connection, sent: Sent) -> int:
    row = db.execute(_WRITE, [getattr(sent, name) for name in _COLUMNS])
    return int(row.lastrowid or 0)


@dataclass(frozen=True, slots=True)
class Logged:
    """Questions to a log, over a connection that only reads."""

    connection: sqlite3.Connection
    folder: Path

    def messages(self, study: str = "", *, since: float = 0.0, last: int = 10_000) -> list[Json]:
        """Return the newest messages, oldest first, each with whether its payload is kept."""
        rows = self.connection.execute(
            "SELECT m.*, p.digest IS NOT NULL FROM messages m LEFT JOIN payloads p USING (digest)"
            " WHERE (?1 = '' OR m.study = ?1) AND m.at >= ?2 ORDER BY seq DESC LIMIT ?3",
            (study, since, last),
        ).fetchall()
        names = ("seq", *_COLUMNS, "is_kept")
        return [
            dict(zip(names, row, strict=True)) | {"is_kept": bool(row[-1])} for row in rows[::-1]
        ]

    def polls(self, *, since: float = 0.0) -> list[Json]:
        """Return the counted messages by hour, oldest first."""
        rows = self.connection.execute(
            "SELECT hour, method, digest, count, bytes FROM polls WHERE hour + 3600 > ?"
            " ORDER BY hour, method, digest",
            (since,),
        )
        names = ("hour", "method", "digest", "count", "bytes")
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]

    def total_bytes(self) -> int:
        """Return the bytes of all requests ever."""
        query = (
            "SELECT (SELECT total(bytes) FROM messages) + (SELECT total(bytes) FROM polls)"  # REAL
        )
        return int(self.connection.execute(query).fetchone()[0])

    def payload(self, digest: str) -> bytes:
        """Return what left under a digest, or under its first 12 digits or more.

        Raises:
            UsageError: ``payload-unknown`` where nothing with that digest left or it was purged.
        """
        start = "sha256:" + digest.removeprefix("sha256:")
        rows = self.connection.execute(
            "SELECT digest, data FROM payloads WHERE substr(digest, 1, ?) = ? LIMIT 2",
            (max(len(start), 19), start),
        ).fetchall()
        if len(rows) == 1:
            found, data = rows[0]
            if data is not None:
                return bytes(data)
            blob: Path = self.folder / _FOLDER / found.removeprefix("sha256:")
            if blob.is_file():
                return blob.read_bytes()
        raise UsageError(
            "payload-unknown",
            "no single kept payload has that digest",
            "See: larrey-site egress; payloads go when their study closes or after egress_days.",
        )


def open_log(folder: Path) -> Logged:
    """Return the log in a state folder, to read.

    Raises:
        UsageError: ``no-egress`` where nothing ever left.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise UsageError("no-egress", f"nothing ever left from {folder}", "Run: larrey-site run")
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = 1")
    return Logged(connection, folder)


def unaccounted(logged_bytes: int, peer_bytes: int) -> int:
    """Return how many bytes a peer received that the log does not explain; 0 if all are."""
    return max(0, peer_bytes - logged_bytes)
