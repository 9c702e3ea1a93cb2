"""What this site keeps between rounds for a study's algorithm (SCAFFOLD's c_i, FedDyn's g_i).

One file a round lies in ``states/<study>/<round>`` of the state folder, written whole and durably
before the update of that round is committed. Which one is in force follows from the next request:
the newest round whose update was committed here and, as the coordinator says, applied. The others
go then. A coordinator that lies picks an older state or none, each a function of released values.
A kill at any moment leaves what an undisturbed run would have: a file that no commit followed is
written anew by the repeated training, or never picked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from larrey_protocol.disk import disk_errors

__all__ = ["FOLDER", "SiteStates"]

FOLDER = "states"
_BLOCK_BYTES = 1 << 20


class SiteStates:
    """The states of all studies in a state folder; each study is worked on by one thread."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    def in_force(self, study: str, applied: int, committed: Collection[int]) -> int | None:
        """Return a descriptor of the state in force, which the caller closes; None before any.

        Args:
            study: digest.
            applied: the round whose update of this site was applied last; untrusted.
            committed: rounds whose update this site committed to.
        """
        found = sorted(n for n in self._rounds(study) if n <= applied and n in committed)
        for number in set(self._rounds(study)) - set(found[-1:]):
            self._path(study, number).unlink(missing_ok=True)
        if not found:
            return None
        return os.open(self._path(study, found[-1]), os.O_RDONLY | os.O_CLOEXEC)

    def keep(self, study: str, round_number: int, file: int) -> None:
        """Keep a copy of a file as the state after a round, durably.

        Raises:
            LarreyError: ``disk-full``.
        """
        path, offset = self._path(study, round_number), 0
        part = path.with_name(path.name + ".part")
        with disk_errors():
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, parents=True)
                _sync(path.parent.parent)
                _sync(path.parent.parent.parent)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                while block := os.pread(file, _BLOCK_BYTES, offset):
                    out.write(block)
                    offset += len(block)
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
            _sync(path.parent)

    def kept(self, study: str) -> list[tuple[str, int]]:
        """Return digest and bytes of what lies here of a study."""
        folder = self._of(study)
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        return [(_digest(path), path.stat().st_size) for path in paths]

    def forget(self, study: str) -> None:
        """Remove what lies here of a study."""
        shutil.rmtree(self._of(study), ignore_errors=True)

    def _rounds(self, study: str) -> list[int]:
        folder = self._of(study)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    def _path(self, study: str, round_number: int) -> Path:
        return self._of(study) / f"{round_number:05d}"

    def _of(self, study: str) -> Path:
        return self._folder / study.removeprefix("sha256:")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
