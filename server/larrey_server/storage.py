"""Whether the coordinator's state folder takes writes, and when it does again.

Whoever fails to write says so here. From then on no study goes on and /readyz says no, until a
trial write succeeds: a block in the folder, flushed, and a commit of the journal. Nobody has to
start anything again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from larrey_protocol.disk import DiskError, disk_code

__all__ = ["Storage", "write_trial"]

logger = logging.getLogger(__name__)
_TRIAL = "trial.part"
_TRIAL_BYTES = 1 << 20  # room for some commits, so that it does not fail again at once


class Storage:
    """What keeps the state folder from being written; thread-safe."""

    def __init__(self, attempt: Callable[[], None] = lambda: None) -> None:
        """Take what tries to write; it raises while that fails."""
        self._attempt = attempt
        self._lock = threading.Lock()
        self._fault = ""
        self.changed: Callable[[str], None] = lambda _: None  # told the new fault, "" for none

    @property
    def fault(self) -> str:
        """Return the code of what is wrong, empty while all is well."""
        return self._fault

    def failed(self, code: str) -> None:
        """Note that a write failed for a reason of `larrey_protocol.disk`."""
        with self._lock:
            if code == self._fault:
                return
            self._fault = code
        logger.error("state folder not writable code=%s: %s", code, DiskError(code))
        self.changed(code)

    def require(self) -> None:
        """Return if writes may succeed.

        Raises:
            DiskError: what is wrong.
        """
        if fault := self._fault:
            raise DiskError(fault)

    def look(self) -> None:
        """Try again to write where that failed."""
        if not self._fault:
            return
        try:
            self._attempt()
        except Exception as error:
            code = disk_code(error)
            if not code:
                raise
            self.failed(code)
            return
        with self._lock:
            self._fault = ""
        logger.warning("state folder writable again")
        self.changed("")


def write_trial(folder: Path) -> None:
    """Write a block in a folder, flush it and remove it.

    Raises:
        OSError: the folder takes no writes.
    """
    path = folder / _TRIAL
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        block = bytes(_TRIAL_BYTES)
        done = 0
        while done < len(block):
            done += os.write(descriptor, block[done:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
