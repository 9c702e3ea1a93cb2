"""What keeps a state folder from being written, told from the error of whoever tried.

One home for both sides. Each of these passes when a person mends the disk, so that whoever meets
one waits and tries again; nothing that was not durable has been announced.

    disk-full        no room, or no quota, is left
    state-read-only  the file system or the folder takes no writes
    state-locked     another program holds the database
    state-damaged    the disk fails, or the database is not one
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from larrey_protocol.errors import LarreyError

__all__ = ["DISK_CODES", "DiskError", "disk_code", "disk_errors"]

_SENTENCES = {
    "disk-full": (
        "no room is left in the state folder",
        "Free space on its disk; it goes on by itself then.",
    ),
    "state-read-only": (
        "the state folder takes no writes",
        "Let its disk be written, and the folder by this account; it goes on by itself then.",
    ),
    "state-locked": (
        "another program holds the database of the state folder",
        "End it; it goes on by itself then.",
    ),
    "state-damaged": (
        "the database of the state folder cannot be read or written",
        "Check the disk; restore the state folder from a backup, then start again.",
    ),
}
DISK_CODES = frozenset(_SENTENCES)
_OF_ERRNO = {
    errno.ENOSPC: "disk-full",
    errno.EDQUOT: "disk-full",
    errno.EROFS: "state-read-only",
    errno.EACCES: "state-read-only",
    errno.EPERM: "state-read-only",
    errno.EIO: "state-damaged",
}
_OF_SQLITE = {  # primary result codes, sqlite.org/rescode.html
    sqlite3.SQLITE_FULL: "disk-full",
    sqlite3.SQLITE_READONLY: "state-read-only",
    sqlite3.SQLITE_PERM: "state-read-only",
    sqlite3.SQLITE_CANTOPEN: "state-read-only",
    sqlite3.SQLITE_BUSY: "state-locked",
    sqlite3.SQLITE_LOCKED: "state-locked",
    sqlite3.SQLITE_CORRUPT: "state-damaged",
    sqlite3.SQLITE_NOTADB: "state-damaged",
    sqlite3.SQLITE_IOERR: "state-damaged",
}
_NO_ROOM = frozenset(  # extended codes of a shared-memory file that cannot grow
    {sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP}
)


class DiskError(LarreyError):
    """The state folder cannot be written, or not be read, now; codes are `DISK_CODES`."""

    def __init__(self, code: str) -> None:
        super().__init__(code, *_SENTENCES[code])


def disk_code(error: BaseException) -> str:
    """Return the code of an error that the disk is to blame for, empty for any other."""
    if isinstance(error, LarreyError):
        return error.code if error.code in DISK_CODES else ""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)  # absent where the module itself complains
        return "disk-full" if code in _NO_ROOM else _OF_SQLITE.get(code & 0xFF, "")
    return _OF_ERRNO.get(error.errno or 0, "") if isinstance(error, OSError) else ""


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what the disk is to blame for into an error with a next step; let the rest pass.

    Raises:
        DiskError: as `disk_code` has it.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        code = disk_code(error)
        if not code:
            raise
        raise DiskError(code) from error
