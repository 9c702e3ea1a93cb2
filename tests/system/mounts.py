"""A small disk of a test's own, in a mount namespace that nobody else sees."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

_NEWNS = 0x0002_0000  # CLONE_NEWNS, linux/sched.h
_REC_PRIVATE = 0x4000 | 0x0004_0000  # MS_REC | MS_PRIVATE, linux/mount.h
_RDONLY_REMOUNT = 1 | 32  # MS_RDONLY | MS_REMOUNT
_REMOUNT = 32
_T = TypeVar("_T")


class SmallDisk:
    """A file system in memory at ``folder``, seen by what runs through `run` and its threads."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.folder = folder
        self._pool = pool

    def run(self, work: Callable[[], _T]) -> _T:
        """Return what ``work`` returns in the namespace; threads and processes it starts stay."""
        return self._pool.submit(work).result()

    def fill(self) -> None:
        """Leave no room."""
        self.run(self._fill)

    def free(self) -> None:
        """Give the room back."""
        self.run((self.folder / "ballast").unlink)

    def lock(self) -> None:
        """Let nobody write."""
        self._remount(_RDONLY_REMOUNT)

    def unlock(self) -> None:
        """Let everybody write again."""
        self._remount(_REMOUNT)

    def _fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:  # full
                    continue

    def _remount(self, flags: int) -> None:
        self.run(lambda: _mount(b"none", self.folder, b"", flags))


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Give a disk; skip where this account may not make mount namespaces."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(_enter, folder, mebibytes).result()
        except PermissionError:
            pytest.skip("this account may not make mount namespaces")
        yield SmallDisk(folder, pool)


def _enter(folder: Path, mebibytes: int) -> None:
    _checked(_libc().unshare(_NEWNS))
    _mount(b"none", Path("/"), b"", _REC_PRIVATE)
    _mount(b"tmpfs", folder, f"size={mebibytes}m".encode(), 0)


def _mount(kind: bytes, folder: Path, data: bytes, flags: int) -> None:
    _checked(_libc().mount(b"none", os.fsencode(folder), kind, flags, data))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
