"""One writer for a site's state: a database that a second process cannot open.

The lock is advisory (``flock`` on a file beside the database), held as long as the connection is
open and given back by the kernel when the process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

from larrey_protocol.disk import disk_errors
from larrey_protocol.errors import IntegrityError, UsageError

__all__ = ["open_exclusive"]


class _LockedConnection(sqlite3.Connection):
    """A connection that gives its lock back when it is closed."""

    lock: int = -1

    def close(self) -> None:
        super().close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def open_exclusive(path: Path) -> sqlite3.Connection:
    """Return the only connection to the database: WAL, full synchronous, autocommit mode.

    The caller writes ``BEGIN IMMEDIATE`` and ``COMMIT``. It may be used from several threads, one
    at a time. File and lock are readable by their owner only.

    Raises:
        UsageError: ``state-locked`` when another process, or another connection, has it open.
        IntegrityError: ``ledger-damaged`` when the file is not a readable database.
        DiskError: ``state-read-only`` or ``disk-full`` when lock or file cannot be written.
    """
    with disk_errors():
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _connect(path, lock)
    except BlockingIOError as error:
        os.close(lock)
        raise UsageError(
            "state-locked",
            "another process is using this state folder.",
            "Stop it first, or use another state folder.",
        ) from error
    except BaseException:
        os.close(lock)
        raise


def _connect(path: Path, lock: int) -> sqlite3.Connection:
    with disk_errors():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}  # Any: mixed
    connection = sqlite3.connect(path, factory=_LockedConnection, **options)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-512")  # KiB: a ledger is appended to, seldom read
    except sqlite3.DatabaseError as error:
        connection.close()
        raise IntegrityError(
            "ledger-damaged",
            "the state file is not a readable database.",
            "Keep the file as evidence and restore the newest copy of the site's state.",
        ) from error
    connection.lock = lock
    return connection
