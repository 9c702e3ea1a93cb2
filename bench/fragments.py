"""Run a part of tests/chaos as a command of its own and read the figures that it leaves.

A part that hangs is interrupted so that it stops what it started, and killed if that does not help.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "Fragment", "kept", "parts", "run"]

FOLDER = Path("runs") / "chaos"
_CHAOS = Path(__file__).parents[1] / "tests" / "chaos"
_LAST_WORDS_S = 30.0
_ENDED = "ended"  # how a part's run went, beside its figures

Facts = dict[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a part left.

    Attributes:
        facts: of all JSON files that it wrote, together; empty where it wrote none.
        status: its exit status; 124 where its time was over.
    """

    part: str
    facts: Facts
    status: int
    seconds: float


def parts() -> tuple[str, ...]:
    """Return the names of all parts, as ``tests/chaos/__main__.py`` lists them."""
    listed = runpy.run_path(str(_CHAOS / "__main__.py"), run_name="listed")
    return tuple(listed["_PARTS"])


def run(
    part: str,
    arguments: Sequence[str],
    limit_s: float,
    folder: Path = FOLDER,
    program: Path = _CHAOS,
) -> Fragment:
    """Return what a part left in ``folder``/PART, which is emptied before; its output is shown."""
    out = folder / part
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    began = time.monotonic()
    command = [sys.executable, str(program), part, "--out", str(out), *arguments]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        status = 124
    finally:
        _end(process)
    ended = {"status": status, "seconds": time.monotonic() - began, "arguments": [*arguments]}
    (out / _ENDED).write_text(json.dumps(ended), encoding="utf-8")
    return _read(part, out, ended)


def kept(part: str, arguments: Sequence[str], folder: Path = FOLDER) -> Fragment | None:
    """Return what an earlier run of a part left, if it ran with these arguments and succeeded."""
    ended = folder / part / _ENDED
    if not ended.is_file():
        return None
    how = json.loads(ended.read_text(encoding="utf-8"))
    is_same = how["arguments"] == [*arguments] and how["status"] == 0
    return _read(part, folder / part, how) if is_same else None


def _read(part: str, out: Path, ended: Facts) -> Fragment:
    facts: Facts = {}
    for path in sorted(out.glob("*.json")):
        facts |= json.loads(path.read_text(encoding="utf-8"))
    return Fragment(part, facts, ended["status"], ended["seconds"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt it, as a person would; it stops its programs. Kill it where it does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS_S)
    if process.poll() is None:
        process.kill()
        process.wait()
