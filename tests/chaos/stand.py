"""The real programs under a supervisor that starts again whatever died, as systemd would.

A program is ``larrey serve`` or ``larrey-site run`` with whatever it starts (aggregation worker,
trainer). Each has a folder with its own copy of the visitor (`visitor/sitecustomize.py`), where a
test reads which points were reached and arms the one to die at.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from larrey_lab.federation.workspace import Workspace
from tests.system.hospitals import until

_HERE = Path(__file__).parent
APPS = _HERE / "apps"
_READY = re.compile(rb"^larrey(-site [^:]+:| coordinator) ready", re.MULTILINE)
_MOST_FAILED_STARTS = 3
_READY_S = 60.0
_RESTART_S = 0.3  # after a start that failed


@dataclass(frozen=True)
class Mark:
    """A point that a process reached; ``at`` in monotonic seconds of this machine."""

    at: float
    pid: int
    label: str

    @property
    def killed(self) -> str:
        """Return the label at which the process ended itself, empty for any other mark."""
        word, _, label = self.label.partition(" ")
        return label if word == "killed" else ""


class Program:
    """One program, kept running from `start` to `stop`."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / "log"
        self.deaths: list[tuple[float, int]] = []  # monotonic seconds and return code
        self._command = [str(Path(sys.executable).parent / command[0]), *command[1:]]
        self._folder = folder
        self.may_fail = False  # to start; it is tried for ever meanwhile
        self._stopping = threading.Event()
        self._is_wanted = threading.Event()
        self._is_wanted.set()
        self._killed_before: dict[str, int] = {}  # at a label, when it was last armed
        self._ready_before = 0  # how often it was, when it was last started
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name=name, daemon=True)
        folder.mkdir(parents=True)
        shutil.copy(_HERE / "visitor" / "sitecustomize.py", folder)
        for file in ("armed", "trace", "log", "clock"):
            (folder / file).touch()

    @property
    def pid(self) -> int:
        """Return the id of its present process, or of the last one."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        self._keeper.start()

    def stop(self) -> None:
        """End it for good, as a person would; kill it if it does not listen."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        self._is_wanted.set()
        process.send_signal(signal.SIGTERM)
        self._keeper.join(5)
        if self._keeper.is_alive():
            process.kill()
            self._keeper.join()

    def down(self) -> None:
        """End it by SIGKILL and do not start it again until `up`."""
        self._is_wanted.clear()
        before = len(self.deaths)
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: len(self.deaths) > before)

    def up(self) -> None:
        """Start it again after `down`."""
        self._is_wanted.set()

    def await_ready(self) -> None:
        """Wait until it works; no sooner than after its present start."""

        def is_ready() -> bool:
            process = self._process
            is_up = process is not None and process.poll() is None
            return is_up and self._times_ready() > self._ready_before

        until(is_ready, _READY_S)

    def arm(self, *orders: tuple[str, int]) -> None:
        """Have it die at a label, the n-th time it comes there; then, restarted, at the next."""
        self._killed_before |= {label: self.count(f"killed {label}") for label, _ in orders}
        text = "".join(f"{label} {times}\n" for label, times in orders)
        with (self._folder / "armed").open("r+") as file:
            file.truncate(0)
            file.write(text)

    def set_clock(self, wrong_by_s: float) -> None:
        """Have the wall clock of its processes be wrong by so many seconds, from now on."""
        with (self._folder / "clock").open("r+") as file:
            file.write(f"{wrong_by_s:+012.1f}")

    def trace(self) -> list[Mark]:
        """Return all points reached by its processes so far, in order."""
        lines = (self._folder / "trace").read_text().splitlines()
        parts = [line.split(" ", 2) for line in lines]
        return [Mark(float(at), int(pid), label) for at, pid, label in parts]

    def count(self, label: str) -> int:
        """Return how often a mark is in the trace."""
        text = (self._folder / "trace").read_text()
        return len(re.findall(rf" {re.escape(label)}$", text, re.MULTILINE))

    def await_kill(self, label: str, limit_s: float = 60.0) -> Mark:
        """Return the mark of its death at an armed label."""
        wanted, before = f"killed {label}", self._killed_before[label]
        try:
            until(lambda: self.count(wanted) > before, limit_s)
        except AssertionError:
            raise AssertionError(f"{self.name} never came to {label}\n{self.tail()}") from None
        return next(mark for mark in reversed(self.trace()) if mark.label == wanted)

    def tail(self) -> str:
        """Return the end of what it said."""
        return self.log.read_text(errors="replace")[-3000:]

    def _times_ready(self) -> int:
        return len(_READY.findall(self.log.read_bytes()))

    def _keep(self) -> None:
        """Start it, and again whenever it dies; give up where it cannot be started."""
        failed = 0
        while not self._stopping.is_set() and (self.may_fail or failed < _MOST_FAILED_STARTS):
            if not self._is_wanted.wait(_RESTART_S):
                continue
            if failed:
                self._stopping.wait(_RESTART_S)
            self._note("started-by-stand")
            self._ready_before = self._times_ready()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    env=_environment(self._folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            code = self._process.wait()
            self.deaths.append((time.monotonic(), code))
            failed = 0 if code == -signal.SIGKILL else failed + 1

    def _note(self, label: str) -> None:
        with (self._folder / "trace").open("a") as file:
            file.write(f"{time.monotonic():.6f} {os.getpid()} {label}\n")


class Stand:
    """The programs of one workspace; a context manager that stops them all."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        folder = workspace.folder / "stand"
        serve = ["larrey", "serve", "--config", str(workspace.coordinator)]
        self.coordinator = Program("coordinator", serve, folder / "coordinator")
        self.sites: Mapping[str, Program] = {
            name: Program(
                name,
                ["larrey-site", "run", "--config", str(workspace.site(name))],
                folder / name,
            )
            for name in workspace.sites
        }

    @property
    def programs(self) -> list[Program]:
        return [self.coordinator, *self.sites.values()]

    def __enter__(self) -> Stand:
        try:
            self.coordinator.start()
            self.coordinator.await_ready()
            for program in self.sites.values():
                program.start()
            for program in self.sites.values():
                program.await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for program in reversed(self.programs):
            program.stop()

    def unwanted_deaths(self) -> list[tuple[str, int]]:
        """Return who ended other than by SIGKILL, and how."""
        return [
            (program.name, code)
            for program in self.programs
            for _, code in program.deaths
            if code != -signal.SIGKILL
        ]


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a program: the visitor and the tests' apps come first."""
    places = [str(folder), str(APPS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
