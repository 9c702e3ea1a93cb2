"""Start and stop the real programs of a workspace, each a process of its own.

A program counts as started once it said so in its log. Stopping asks (SIGTERM), waits, and kills
what does not listen; a process that this object did not start is never touched.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from larrey_lab.federation.workspace import Workspace
from larrey_protocol.errors import LarreyError

__all__ = ["Federation", "run_command", "typed"]

_READY = re.compile(rb"^larrey(-site [^:]+:| coordinator) ready", re.MULTILINE)


class Federation:
    """The running coordinator and sites of a workspace; a context manager that stops them all."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Federation:
        """Return itself; nothing runs yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop whatever runs."""
        self.stop()

    @property
    def processes(self) -> dict[str, int]:
        """Return the process id of each running program, by name."""
        return {name: process.pid for name, process in self._running.items()}

    def start_coordinator(self) -> None:
        """Start ``larrey serve`` and wait until it listens."""
        config = str(self.workspace.coordinator)
        self._start("coordinator", ["larrey", "serve", "--config", config])
        self._await_ready(["coordinator"])

    def start_sites(self, names: Sequence[str] = ()) -> None:
        """Start ``larrey-site run`` at the named sites (all by default) and wait until all run."""
        names = names or self.workspace.sites
        for name in names:
            self._start(name, ["larrey-site", "run", "--config", str(self.workspace.site(name))])
        self._await_ready(names)

    def kill(self, name: str) -> None:
        """End one program without warning, as a power cut would."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Stop everything: sites first, then the coordinator."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 5
        for process in self._running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def forget(self) -> None:
        """Leave everything running after this process ends."""
        self._running.clear()

    def log(self, name: str) -> Path:
        """Return the log file of one program."""
        return self.workspace.folder / "logs" / f"{name}.log"

    def _start(self, name: str, command: list[str]) -> None:
        log = self.log(name)
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as file:
            self._running[name] = subprocess.Popen(
                [_program(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _await_ready(self, names: Sequence[str], limit_s: float = 60.0) -> None:
        end = time.monotonic() + limit_s
        waiting = set(names)
        while waiting:
            waiting = {name for name in waiting if not _READY.search(self.log(name).read_bytes())}
            for name in waiting:
                if self._running[name].poll() is not None or time.monotonic() > end:
                    raise self._failure(name)
            time.sleep(0.02)

    def _failure(self, name: str) -> LarreyError:
        lines = self.log(name).read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        return LarreyError(
            "not-started", f"{name} did not start: {last}", f"Read {self.log(name)}."
        )


def run_command(*command: str) -> subprocess.CompletedProcess[str]:
    """Return the finished ``larrey`` or ``larrey-site`` command, its output captured as text."""
    arguments = [_program(command[0]), *command[1:]]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, env=os.environ)


def typed(name: str) -> str:
    """Return how a person here types a console script: its name, or its path off the PATH."""
    if shutil.which(name):
        return name
    path = Path(_program(name))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _program(name: str) -> str:
    """Return the path of a console script of this very environment."""
    return str(Path(sys.executable).parent / name)
