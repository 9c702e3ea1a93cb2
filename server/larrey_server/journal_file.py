"""The file of the coordinator's journal: its tables, and what SQLite is told of durability.

Write-ahead log, full synchronous; documents, transitions, contributions, members and audit records
are only ever added, and triggers in the file hold to that.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from larrey_server import anchors

__all__ = ["connect"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, proposal BLOB NOT NULL, state TEXT NOT NULL,
    proposed_at REAL NOT NULL, certificate BLOB) STRICT;
CREATE TABLE IF NOT EXISTS answers (
    study TEXT NOT NULL REFERENCES studies, site TEXT NOT NULL, decision TEXT NOT NULL,
    code TEXT NOT NULL, answer BLOB NOT NULL, PRIMARY KEY (study, site)) STRICT;
CREATE TABLE IF NOT EXISTS transitions (
    seq INTEGER PRIMARY KEY, study TEXT NOT NULL REFERENCES studies, snapshot TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS transitions_of_study ON transitions (study, seq);
CREATE TABLE IF NOT EXISTS contributions (
    study TEXT NOT NULL REFERENCES studies, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    site TEXT NOT NULL, outcome TEXT NOT NULL, code TEXT NOT NULL, epsilon REAL NOT NULL,
    nbytes INTEGER NOT NULL, "update" TEXT NOT NULL, receipt BLOB,
    PRIMARY KEY (study, round, attempt, site)) STRICT;
CREATE TABLE IF NOT EXISTS documents (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, number INTEGER NOT NULL,
    digest TEXT NOT NULL UNIQUE, document BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS documents_of_kind ON documents (kind, subject, seq);
CREATE TABLE IF NOT EXISTS members (
    seq INTEGER PRIMARY KEY, site TEXT NOT NULL, state TEXT NOT NULL, at REAL NOT NULL,
    transport_key BLOB NOT NULL, signing_key TEXT NOT NULL, invitation TEXT NOT NULL,
    expires_at REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    study TEXT NOT NULL, round INTEGER NOT NULL, subject TEXT NOT NULL, code TEXT NOT NULL,
    previous TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
"""
_LOCKED_S = 1.0  # how long another program's lock is waited for; callers wait as long
_WAL_BYTES = 8 << 20  # what the write-ahead log is cut back to after a long reader
_CACHE_KIB = 512  # of pages in memory: what is appended is seldom read again
_APPEND_ONLY = ("transitions", "contributions", "audit", "documents", "members")


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that commits durably and refuses to change what is only added."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_LOCKED_S
    )
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    limits = (f"journal_size_limit = {_WAL_BYTES}", f"cache_size = -{_CACHE_KIB}")
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", *limits):
        connection.execute(f"PRAGMA {pragma}")
    connection.executescript(_SCHEMA + anchors.SCHEMA)
    for table in _APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is only ever added to'); END"
            )
