"""Who used which command or call, and how it ended: one SQLite file a side, kept for months.

Apart from the audit trail, which is kept for years: this log names accounts, is purged, and proves
nothing. It takes no arguments of commands, so that no patient's id can enter it; a verb or code
that is not one is not written as it came.

Written without a flush of its own (synchronous=NORMAL): a power cut may lose the last lines.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["DATABASE", "Access", "AccessLog"]

DATABASE = "access.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS accesses (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, actor TEXT NOT NULL, person TEXT NOT NULL,
    verb TEXT NOT NULL, code TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS accesses_by_time ON accesses (at);
"""
_MONTH_S = 30.44 * 86400.0  # a twelfth of a year
_VERB = re.compile(r"[A-Za-z][A-Za-z /.-]{0,60}")
_CODE = re.compile(r"[a-z][a-z0-9-]{0,47}")
_ACTOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.$@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Access:
    """One use of a command or call.

    Attributes:
        at: seconds since 1970.
        actor: account as the kernel knows it, or name of the certificate.
        person: who signed, where a personal key was used.
        verb: which command or call, without its arguments.
        code: ``ok``, or why it was refused.
    """

    at: float
    actor: str
    verb: str
    code: str
    person: str = ""


class AccessLog:
    """The log of one side; several threads may use it."""

    def __init__(self, folder: Path) -> None:
        path = folder / DATABASE
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, access: Access) -> None:
        """Write one line; what is no verb, code or account becomes ``unknown``."""
        row = (
            access.at,
            _only(_ACTOR, access.actor),
            _only(_ACTOR, access.person) if access.person else "",
            _only(_VERB, access.verb),
            _only(_CODE, access.code),
        )
        with self._lock:
            self._connection.execute("INSERT INTO accesses VALUES (NULL, ?, ?, ?, ?, ?)", row)

    def purge(self, *, now: float, months: int) -> int:
        """Delete lines older than ``months``; return how many."""
        with self._lock:
            limit = now - months * _MONTH_S
            return self._connection.execute("DELETE FROM accesses WHERE at < ?", (limit,)).rowcount

    def rows(
        self, *, since: float = 0.0, until: float = float("inf"), last: int = 10_000
    ) -> list[dict[str, Any]]:  # Any: JSON
        """Return the newest lines of a time, oldest first, as JSON."""
        with self._lock:
            found = self._connection.execute(
                "SELECT at, actor, verb, code, person FROM accesses WHERE at >= ? AND at < ?"
                " ORDER BY seq DESC LIMIT ?",
                (since, min(until, 1e18), last),
            ).fetchall()
        return [asdict(Access(*row)) for row in found[::-1]]


def _only(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else "unknown"
