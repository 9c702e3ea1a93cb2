"""The signed head of the coordinator's audit trail, in a file beside it.

Written after each commit and not flushed: after a power cut an older one, which an intact longer
trail still meets. A tail that is cut off the trail is found by it, unless an older seal is put back
with the cut; then the heads that sites signed for find it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from larrey_protocol.decisions import Anchor
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import sign

__all__ = ["SEAL", "Seal", "read_seal"]

logger = logging.getLogger(__name__)

SEAL = "trail.anchor"
_SIGNS_AS = "coordinator"  # no site may be called so
_MAX_BYTES = 1 << 16


class Seal:
    """Signs where the trail in a state folder stands."""

    def __init__(self, folder: Path, key: SigningKey, now: Callable[[], float]) -> None:
        self._folder, self._key, self._now = folder, key, now

    def write(self, head: str) -> None:
        """Replace the seal by one of this head; a full disk leaves the older one."""
        anchor = Anchor(site=_SIGNS_AS, ledger_head="0:", audit_head=head, at=self._now())
        part = self._folder / f"{SEAL}.part"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(sign(anchor, self._key).to_bytes())
            part.replace(self._folder / SEAL)
        except OSError as error:  # what was committed stays so
            logger.error("the audit trail's seal was not written: %s", error.strerror)  # noqa: TRY400


def read_seal(folder: Path) -> bytes:
    """Return the seal in a state folder as it lies there, empty where there is none."""
    path = folder / SEAL
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(_MAX_BYTES)
