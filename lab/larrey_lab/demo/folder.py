"""The folder of a demo run: made anew each time, and never taken from somebody else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from larrey_protocol.errors import UsageError

__all__ = ["fresh_folder", "note_sandbox"]

_MARK = ".larrey-demo"  # only a folder that holds this file is ever removed


def fresh_folder(folder: Path) -> Path:
    """Return ``folder``, emptied of an earlier demo run.

    Raises:
        UsageError: ``folder-not-ours`` if it holds something else, ``sandbox-running`` if an
            earlier demo was left running in it.
    """
    if folder.exists():
        mark = folder / _MARK
        if not mark.is_file():
            raise UsageError(
                "folder-not-ours",
                f"{folder} exists and is not an earlier demo run",
                "Choose another with --out.",
            )
        alive = [pid for pid in _sandbox(mark).values() if _runs_in(pid, folder)]
        if alive:
            raise UsageError(
                "sandbox-running",
                f"the sandbox of an earlier demo still runs in {folder}",
                f"Stop it: kill {' '.join(map(str, alive))}",
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).write_text("{}")
    return folder


def note_sandbox(folder: Path, processes: Mapping[str, int]) -> None:
    """Remember which processes were left running."""
    (folder / _MARK).write_text(json.dumps(dict(processes)))


def _sandbox(mark: Path) -> dict[str, int]:
    try:
        return {str(name): int(pid) for name, pid in json.loads(mark.read_text()).items()}
    except (ValueError, AttributeError):
        return {}


def _runs_in(pid: int, folder: Path) -> bool:
    """Return whether the process is still one of ours: its command names the folder."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(folder.resolve()) in command or os.fsencode(folder) in command
