"""Models on their way in, on disk, so that a cut transfer goes on after any restart.

One model a study lies in ``models/<study>/<digest>`` of the state folder, or as ``….part`` while it
comes. What lies there is trusted by its digest alone: it is hashed as a whole before it is used,
and removed if it is not what the request named. Payload is not flushed: what a power cut tore is
found by the same digest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larrey_protocol.canonical import DIGEST
from larrey_protocol.errors import IntegrityError, LarreyError, TransportError

__all__ = ["FOLDER", "Download", "ModelSpool", "disk_errors"]

FOLDER = "models"
_BLOCK_BYTES = 1 << 20


class Download:
    """A model file on its way in; `add` what comes, then `finish`; `close` in any case."""

    def __init__(self, path: Path, digest: str, size: int) -> None:
        """Go on with what lies at ``path`` or beside it as ``.part``.

        Args:
            path: where the whole file goes.
            digest: of the whole file.
            size: what the study's own layout says, not the coordinator.

        Raises:
            LarreyError: ``disk-full``.
        """
        self.digest, self.size, self.received = digest, size, 0
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._hash = hashlib.sha256()
        with disk_errors():
            if path.exists():  # to be hashed like any other beginning
                path.replace(self._part)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._part, flags, 0o600)
        if os.fstat(self._descriptor).st_size > size:
            os.ftruncate(self._descriptor, 0)
        while block := os.pread(self._descriptor, _BLOCK_BYTES, self.received):
            self._hash.update(block)
            self.received += len(block)
        self._is_inherited = self.received > 0  # of what an earlier request or process left

    @property
    def is_whole(self) -> bool:
        """Return whether nothing more is to come."""
        return self.received == self.size

    def add(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: ``model-altered`` if they are too many.
            LarreyError: ``disk-full``.
        """
        if self.received + len(data) > self.size:
            raise self._altered()
        with memoryview(data) as view, disk_errors():
            done = 0
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self.received + done)
        self._hash.update(data)
        self.received += len(data)

    def finish(self) -> int:
        """Return a descriptor to read the whole file with; the caller closes it.

        Raises:
            IntegrityError: ``model-altered`` if size or digest differ; the file is removed.
            TransportError: ``model-torn`` if they do and part of it lay here before: a power cut
                can do that, so it is fetched once more from its beginning.
        """
        if not self.is_whole or f"sha256:{self._hash.hexdigest()}" != self.digest:
            if self._is_inherited:
                raise self._torn()
            raise self._altered()
        with disk_errors():
            self._part.replace(self._path)
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Leave what came where it is."""
        os.close(self._descriptor)

    def _torn(self) -> TransportError:
        os.ftruncate(self._descriptor, 0)
        self.received, self._hash, self._is_inherited = 0, hashlib.sha256(), False
        return TransportError("model-torn", "what lay here of the model was not its beginning")

    def _altered(self) -> IntegrityError:
        self._part.unlink(missing_ok=True)
        os.ftruncate(self._descriptor, 0)
        what = f"the model is not {self.digest} of {self.size} bytes"
        return IntegrityError("model-altered", what, "Nothing was spent.")


class ModelSpool:
    """The models of all studies in a state folder; each study is worked on by one thread."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    @contextmanager
    def begin(self, study: str, digest: str, size: int) -> Iterator[Download]:
        """Give the download of a study's present model; any other model of it is removed.

        Raises:
            LarreyError: ``disk-full``.
        """
        folder = self._of(study)
        name = _hex(digest)
        with disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path.name not in {name, name + ".part"}:
                    path.unlink()
        download = Download(folder / name, digest, size)
        try:
            yield download
        finally:
            download.close()

    def kept(self, study: str) -> list[tuple[str, int]]:
        """Return digest, empty where it is a part, and bytes of what lies here of a study."""
        folder = self._of(study)
        if not folder.is_dir():
            return []
        return [
            ("" if path.suffix else f"sha256:{path.name}", path.stat().st_size)
            for path in sorted(folder.iterdir())
        ]

    def forget(self, study: str) -> None:
        """Remove what lies here of a study."""
        shutil.rmtree(self._of(study), ignore_errors=True)

    def _of(self, study: str) -> Path:
        return self._folder / _hex(study)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn a full disk into an error with a next step; it leaves the site as ``node-failed``.

    Raises:
        LarreyError: ``disk-full``.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise LarreyError(
            "disk-full", "no room is left in the state folder", "Free space at site.state."
        ) from error


def _hex(digest: str) -> str:
    if not DIGEST.fullmatch(digest):
        raise ValueError("expected sha256: and 64 hexadecimal digits")
    return digest.removeprefix("sha256:")
