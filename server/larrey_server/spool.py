"""Blobs by digest: models going out, updates coming in.

A blob is a file named by the hex digits of its SHA-256, so a name can neither escape the folder nor
be chosen by the sender. An upload grows in ``<hex>.part`` and resumes where it was cut; it becomes
a blob by rename once its bytes hash to its name. Payload is not synced to disk: a blob that
survived a power cut torn is found by its digest before it is used again, and is fetched anew.
Who may read or write which blob is decided by the caller. Where the disk is to blame for what
cannot be written, that is a `DiskError`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from larrey_protocol.canonical import DIGEST, digest_bytes
from larrey_protocol.disk import DiskError, disk_errors
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.waypoints import reached

__all__ = ["Spool", "SpoolWriter"]

_BLOCK_BYTES = 1 << 20


class SpoolWriter:
    """One upload in progress; the bytes so far are durable against a cut connection."""

    def __init__(self, path: Path, total: int, offset: int) -> None:
        create = 0 if offset else os.O_CREAT
        try:
            self._descriptor = os.open(path, os.O_RDWR | create | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise Refusal(
                "upload-gap", f"the upload goes on at byte {offset}, 0 are here"
            ) from None
        self._total = total
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._superseded = False
        self.offset = 0  # bytes that lie in the spool
        have = os.fstat(self._descriptor).st_size
        if offset > have:
            os.close(self._descriptor)
            raise Refusal("upload-gap", f"the upload goes on at byte {offset}, {have} are here")
        os.ftruncate(self._descriptor, offset)

    def catch_up(self) -> None:
        """Hash the bytes that an earlier connection left."""
        with self._lock:
            for block in _blocks(self._descriptor):
                self._hash.update(block)
                self.offset += len(block)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            Refusal: ``upload-too-large`` past the announced size, ``upload-superseded`` when the
                same blob is being sent again over another connection.
        """
        if self.offset + len(data) > self._total:
            raise Refusal("upload-too-large", f"more than the announced {self._total} bytes came")
        with self._lock:
            if self._superseded:
                raise Refusal("upload-superseded", "the same blob comes over another connection")
            done = 0
            with memoryview(data) as view:
                while done < len(view):
                    done += os.pwrite(self._descriptor, view[done:], self.offset + done)
            self._hash.update(data)
            self.offset += done

    def supersede(self) -> None:
        """Refuse further bytes, because a newer connection took over."""
        with self._lock:
            self._superseded = True

    def close(self) -> str | None:
        """Return the digest of all bytes if they are all here, else None; close the file."""
        with self._lock:
            os.close(self._descriptor)
            whole = self.offset == self._total and not self._superseded
            self._superseded = True
            return f"sha256:{self._hash.hexdigest()}" if whole else None


class Spool:
    """A folder of content-addressed blobs; safe to use from many threads of one process."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._writers: dict[tuple[str, str], SpoolWriter] = {}  # by blob and owner
        self._adopted: Counter[str] = Counter()
        self._sound: set[str] = set()  # blobs whose bytes this process has hashed or made
        self.on_fault: Callable[[str], None] = lambda _: None  # told the code of each `DiskError`

    @classmethod
    def open(cls, folder: Path, *, limit_bytes: int = 16 << 30) -> Spool:
        """Return the spool in ``folder``, made if need be; no blob may exceed ``limit_bytes``."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(folder, limit_bytes)

    def path(self, digest: str) -> Path:
        """Return where the blob lies or would lie.

        Raises:
            IntegrityError: ``bad-digest`` for anything but ``sha256:`` and 64 hex digits.
        """
        if not DIGEST.fullmatch(digest):
            raise IntegrityError("bad-digest", "expected sha256: and 64 hexadecimal digits")
        return self.folder / digest.removeprefix("sha256:")

    def complete(self, digest: str) -> bool:
        """Return whether the whole blob is here and its bytes are sound.

        A blob left by an earlier process is hashed once; a torn one is removed.
        """
        path = self.path(digest)
        if not path.is_file():
            return False
        if digest not in self._sound:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != path.name:
                path.unlink(missing_ok=True)
                return False
            self._sound.add(digest)
        return True

    def have(self, digest: str, owner: str = "") -> int:
        """Return how many bytes of an owner's upload are here; the size of a complete blob."""
        path = self.path(digest)
        part = path if self.complete(digest) else _part(path, owner)
        return part.stat().st_size if part.is_file() else 0

    @contextmanager
    def writer(
        self, digest: str, total: int, offset: int = 0, *, owner: str = ""
    ) -> Iterator[SpoolWriter]:
        """Write a blob of ``total`` bytes from ``offset``.

        A newer writer takes over its owner's older one; uploads of the same bytes by two owners
        do not meet. ``owner`` is a site's name.

        When the context ends with all bytes here, they become the blob; otherwise they wait for
        the upload to go on.

        Raises:
            IntegrityError: ``bad-digest``, or ``wrong-digest`` when the bytes are not the blob;
                they are then removed.
            Refusal: ``upload-too-large`` or ``upload-gap``.
            DiskError: the disk takes no more; what came stays.
        """
        path = self.path(digest)
        if not 0 <= offset <= total <= self._limit_bytes:
            raise Refusal("upload-too-large", f"{total} bytes from {offset} were announced")
        with self._telling():
            with self._lock:
                if (older := self._writers.get((digest, owner))) is not None:
                    older.supersede()
                writer = SpoolWriter(_part(path, owner), total, offset)
                self._writers[digest, owner] = writer
            try:
                writer.catch_up()
                yield writer
            finally:
                self._finish(digest, owner, writer)

    def add_bytes(self, data: bytes) -> str:
        """Return the digest under which ``data`` now lies here."""
        digest = digest_bytes(data)
        if not self.complete(digest):
            with self.writer(digest, len(data)) as writer:
                writer.write(data)
        return digest

    def adopt(self, path: Path, digest: str) -> None:
        """Offer a finished file under its digest: a link where the file system can, else a copy.

        The caller has computed ``digest`` from the file's bytes. The blob stays, whatever is
        dropped, until it was released as often as adopted.
        """
        target = self.path(digest)
        with self._telling(), self._lock:
            if not target.exists() or not target.samefile(path):
                part = target.with_name(target.name + ".copy")
                part.unlink(missing_ok=True)
                try:
                    os.link(path, part)
                except OSError:
                    shutil.copyfile(path, part)
                part.replace(target)  # what lay there may be torn
            self._adopted[digest] += 1
            self._sound.add(digest)

    def keep(self, digest: str) -> None:
        """Let the blob stay, whoever drops it, until it was released as often as kept."""
        with self._lock:
            self._adopted[digest] += 1

    def release(self, digest: str) -> None:
        """Undo one `adopt` or `keep`; the last one drops the blob."""
        with self._lock:
            self._adopted[digest] -= 1
        self.drop(digest)

    def open_read(self, digest: str) -> int:
        """Return a read-only descriptor; it stays valid when the blob is dropped meanwhile.

        Raises:
            Refusal: ``blob-missing``.
        """
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Refusal("blob-missing", "no such blob is offered here") from error

    def drop(self, digest: str) -> None:
        """Forget a blob and any part of it, and end its upload, unless it is adopted or kept."""
        path = self.path(digest)
        with self._lock:
            if self._adopted[digest] > 0:
                return
            del self._adopted[digest]
            self._sound.discard(digest)
            for key in [key for key in self._writers if key[0] == digest]:
                self._writers.pop(key).supersede()
            path.unlink(missing_ok=True)
            for name in os.listdir(self.folder):
                if name.startswith(path.name) and name.endswith(".part"):
                    (self.folder / name).unlink(missing_ok=True)

    def sweep(self, before: float) -> int:
        """Remove what was last written before a time and is neither adopted nor kept.

        An earlier process left it: nothing here is on record, so only age tells what no open round
        can ask for again. Returns how many files went; to be called before uploads are taken.
        """
        swept = 0
        with self._lock:
            held = {digest.removeprefix("sha256:") for digest, n in self._adopted.items() if n > 0}
            for path in self.folder.iterdir():
                if path.name not in held and path.is_file() and path.stat().st_mtime < before:
                    path.unlink()
                    swept += 1
        return swept

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise `DiskError` where the disk is to blame, and tell its code."""
        try:
            with disk_errors():
                yield
        except DiskError as error:
            self.on_fault(error.code)
            raise

    def _finish(self, digest: str, owner: str, writer: SpoolWriter) -> None:
        """Close an upload and, if it is whole, turn it into the blob."""
        path = self.path(digest)
        with self._lock:
            found = writer.close()
            if self._writers.get((digest, owner)) is writer:
                del self._writers[digest, owner]
            if found == digest:
                _part(path, owner).replace(path)
                reached("coordinator.upload-whole")
                self._sound.add(digest)
            elif found is not None:
                _part(path, owner).unlink(missing_ok=True)
        if found not in (None, digest):
            raise IntegrityError("wrong-digest", "the uploaded bytes are not the announced blob")


def _part(path: Path, owner: str) -> Path:
    return path.with_name(f"{path.name}.{owner}.part" if owner else f"{path.name}.part")


def _blocks(descriptor: int) -> Iterator[bytes]:
    """Yield a file's bytes from its start."""
    offset = 0
    while block := os.pread(descriptor, _BLOCK_BYTES, offset):
        offset += len(block)
        yield block
