"""What changes when a file does, from the file system alone."""

from __future__ import annotations

from pathlib import Path

__all__ = ["file_state"]


def file_state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written; all zero where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return (0, 0, 0, 0, 0)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
