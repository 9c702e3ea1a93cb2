"""Tensor files of the aggregation worker: read into buffers it keeps, written whole or not at all.

No mapping: mapped pages count as memory. A file takes its name only when it is whole and on disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.encodings import decode
from larrey_protocol.envelope import read_encoded
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.tensors import TensorLayout
from larrey_protocol.waypoints import reached
from larrey_strategies.contract import State, Vector

__all__ = ["Output", "Stored", "Updates", "reading", "replacing", "sync_folder"]

_ITEM = 4  # bytes of a float32


class Updates:
    """The updates of a round, in one layout; each has a buffer, made when it is first read."""

    def __init__(self, files: Sequence[int], layout: TensorLayout) -> None:
        self._files, self._layout = files, layout
        self._buffers: dict[int, NDArray[np.float32]] = {}

    def read(self, site: int, start: int, count: int) -> Vector:
        """Return ``count`` values from ``start``; valid until this site is read again.

        Raises:
            IntegrityError: ``file-changed``, the file became shorter.
        """
        if site not in self._buffers or self._buffers[site].size < count:
            self._buffers[site] = np.empty(count, np.float32)
        buffer = self._buffers[site][:count]
        if self._layout.encoding == "float32":
            return _fill(self._files[site], buffer, len(self._layout.header) + start * _ITEM)
        return _decoded(self._files[site], buffer, self._layout, start)


class Stored:
    """A file of equally long vectors, one a name: a model, or what a strategy keeps."""

    def __init__(self, file: int, layout: TensorLayout, names: Sequence[str], size: int) -> None:
        self._file, self._names, self._size = file, names, size
        self._begin = len(layout.header)
        self._buffers: list[NDArray[np.float32]] = []

    def read(self, start: int, count: int) -> State:
        """Return the same stretch of each vector; valid until the next call."""
        if not self._buffers:
            self._buffers = [np.empty(count, np.float32) for _ in self._names]
        return {
            name: _fill(
                self._file, buffer[:count], self._begin + (index * self._size + start) * _ITEM
            )
            for index, (name, buffer) in enumerate(zip(self._names, self._buffers, strict=True))
        }


class Output:
    """A tensor file being written; ``digest`` grows with what is appended."""

    def __init__(self, descriptor: int, layout: TensorLayout) -> None:
        self._descriptor = descriptor
        self._begin = self._end = len(layout.header)
        self.digest = hashlib.sha256(layout.header)
        _write(descriptor, memoryview(layout.header), 0)

    def append(self, values: Vector) -> None:
        """Write the next elements."""
        data = _bytes(values)
        self.digest.update(data)
        _write(self._descriptor, data, self._end)
        self._end += len(data)

    def put(self, values: Vector, index: int) -> None:
        """Write elements from ``index``; the digest does not follow."""
        _write(self._descriptor, _bytes(values), self._begin + index * _ITEM)


@contextmanager
def reading(path: Path, layout: TensorLayout) -> Iterator[int]:
    """Open a tensor file that has been checked before; look at its size and header again.

    Raises:
        IntegrityError: ``file-changed``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        same_size = os.fstat(descriptor).st_size == layout.nbytes
        if not same_size or os.pread(descriptor, len(layout.header), 0) != layout.header:
            raise IntegrityError("file-changed", "a tensor file is not what was checked before")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, layout: TensorLayout) -> Iterator[Output]:
    """Write a file that appears under its name whole and durable, or not at all."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield Output(descriptor, layout)
        os.fsync(descriptor)
        reached("aggregator.model-written")
        part.replace(path)
        reached("aggregator.model-renamed")
        sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, buffer: NDArray[np.float32], offset: int) -> Vector:
    view, done = buffer.data.cast("B"), 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise IntegrityError("file-changed", "a tensor file became shorter while it was read")
        done += count
    return buffer


def _decoded(
    descriptor: int, buffer: NDArray[np.float32], layout: TensorLayout, start: int
) -> Vector:
    try:
        scales, codes = read_encoded(descriptor, layout, start, buffer.size)
    except Refusal as error:
        raise IntegrityError("file-changed", "an update became shorter meanwhile") from error
    return decode(scales, codes, buffer)


def _bytes(values: Vector) -> memoryview:
    return np.ascontiguousarray(values, "<f4").data.cast("B")


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)
