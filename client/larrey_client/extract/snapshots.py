"""The snapshots in a site's state folder: at most one a dataset, named by its content.

A snapshot appears whole or not at all, only this account may read it, and the one before goes when
it has appeared. Standard library only: the agent looks here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path

from larrey_client.settings import Dataset
from larrey_client.sources_settings import FileSource, ImageSource
from larrey_protocol.errors import DataError

__all__ = ["current", "folder_of", "keep", "rows_of", "sole_writer"]

_DIGITS = 16  # of the content's digest, enough to tell snapshots of one dataset apart


def rows_of(dataset: Dataset, state: Path) -> Path:
    """Return the file with a dataset's rows (of images, their list).

    Raises:
        DataError: ``snapshot-missing`` where a database was not extracted yet.
    """
    match dataset.origin:
        case FileSource(path=path) | ImageSource(manifest=path):
            return path
    snapshot = current(state, dataset.name)
    if snapshot is None:
        raise DataError(
            "snapshot-missing",
            f"dataset '{dataset.name}' was not extracted from its database yet",
            f"Run: larrey-site data extract {dataset.name}",
        )
    return snapshot


def folder_of(state: Path) -> Path:
    """Return where the snapshots of a site lie."""
    return state / "snapshots"


def current(state: Path, dataset: str) -> Path | None:
    """Return a dataset's snapshot, None if there is none."""
    found = [path for path in folder_of(state).glob("*.parquet") if _dataset_of(path) == dataset]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


@contextmanager
def sole_writer(state: Path, dataset: str) -> Iterator[int]:
    """Give a descriptor of a new, empty file for a dataset's rows; others wait for their turn.

    What `keep` did not make a snapshot of is gone afterwards, also what a killed process left.
    """
    folder = folder_of(state)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = _partial(state, dataset)
    with (folder / f".{dataset}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        partial.unlink(missing_ok=True)
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)
            partial.unlink(missing_ok=True)


def keep(state: Path, dataset: str, fd: int) -> Path:
    """Make the file of `sole_writer` the dataset's snapshot, durably; return its path."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        digest = file_digest(file, "sha256").hexdigest()[:_DIGITS]
    os.fsync(fd)
    folder = folder_of(state)
    target = folder / f"{dataset}-{digest}.parquet"
    _partial(state, dataset).replace(target)
    os.utime(target)
    for other in folder.glob("*.parquet"):
        if _dataset_of(other) == dataset and other != target:
            with contextlib.suppress(FileNotFoundError):
                other.unlink()
    _sync(folder)
    return target


def _partial(state: Path, dataset: str) -> Path:
    return folder_of(state) / f".{dataset}.partial"


def _dataset_of(snapshot: Path) -> str:
    return snapshot.stem.rpartition("-")[0]


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
