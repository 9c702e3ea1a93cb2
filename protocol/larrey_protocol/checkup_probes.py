"""What both doctors measure of a machine: disks, clock, installed engine. Reads alone.

One exception: `flush_time` writes a file without a name into the folder, which nobody else sees.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

__all__ = [
    "REMOTE",
    "engine_versions",
    "file_system",
    "flush_time",
    "is_clock_kept",
    "nearest",
]

REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "afs"})
_MOUNTS = Path("/proc/self/mountinfo")


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def file_system(path: Path, mountinfo: str = "") -> str:
    """Return the kind of file system that holds ``path``; "" where no mount does.

    Source: proc_pid_mountinfo(5); the last and deepest mount point above the path counts.
    """
    best, kind = -1, ""
    for line in (mountinfo or _MOUNTS.read_text(encoding="utf-8")).splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind


def flush_time(folder: Path) -> tuple[str, float | None]:
    """Return what the system says to a write, "" for nothing, and the median of five flushes."""
    took: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(5):
                file.write(bytes(4096))
                file.flush()
                begun = time.monotonic()
                os.fsync(file.fileno())
                took.append(time.monotonic() - begun)
    except OSError as error:
        return error.strerror or "cannot be written", None
    return "", sorted(took)[2]


def is_clock_kept() -> bool | None:
    """Return what adjtimex(2) says: 5 (TIME_ERROR) where nothing keeps the clock."""
    room = ctypes.create_string_buffer(512)  # struct timex; all zero asks and sets nothing
    try:
        said = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    except (OSError, AttributeError):
        return None
    return None if said < 0 else said != 5


def engine_versions() -> tuple[str, str]:
    """Return the installed version of flwr and the one this release is made for, "" if unknown."""
    return _installed(), _wanted()


def _installed() -> str:
    try:
        return version("flwr")
    except PackageNotFoundError:
        return ""


def _wanted() -> str:
    for package in ("larrey", "larrey-node"):
        with suppress(PackageNotFoundError):
            for line in requires(package) or ():
                if found := re.match(r"flwr\s*==\s*([\w.]+)", line):
                    return found[1]
    return ""
