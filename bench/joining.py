"""From an invitation file to a connected node: how many commands, how many seconds.

Real processes on loopback, started once: `larrey init`, `larrey serve`, `larrey invite` on the
consortium's side, then what a hospital types. Only the hospital's part is counted and timed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from larrey_client.local import ask
from larrey_lab.federation.workspace import free_port
from larrey_protocol.errors import LarreyError

__all__ = ["Trial", "measure"]

_LIMIT_S = 60.0


class Trial:
    """A consortium made by `larrey init` in a new folder, and what runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"localhost:{free_port()}"
        self.coordinator = folder / "trial" / "coordinator" / "coordinator.toml"
        self.operator = folder / "trial" / "operator" / "operator.toml"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Trial:
        """Return itself once the coordinator listens."""
        self.run("larrey", "init", str(self.folder / "trial"), "--address", self.address)
        silence(self.coordinator)
        self.start("coordinator", "larrey", "serve", "--config", str(self.coordinator))
        self.until(lambda: "ready" in self.log("coordinator").read_text())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop whatever runs."""
        for name in reversed(list(self._running)):
            self.stop(name)

    def invite(self, site: str) -> Path:
        """Return a new invitation."""
        out = self.folder / f"{site}.invite"
        self.run("larrey", "invite", site, "--operator", str(self.operator), "--out", str(out))
        return out

    def run(self, program: str, *words: str) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            [_program(program), *words], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise LarreyError("command-failed", f"{program} {words[0]}: {done.stderr.strip()}")
        return done.stdout

    def start(self, name: str, program: str, *words: str) -> None:
        """Start a program; what it prints goes to its log."""
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [_program(program), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, name: str) -> None:
        """End a program that this object started."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log(self, name: str) -> Path:
        """Return a program's log."""
        return self.folder / f"{name}.log"

    def status(self, home: Path) -> dict[str, Any]:  # Any: JSON
        """Return what a node says of itself; empty while it does not run."""
        try:
            found: dict[str, Any] = ask(home / "state", "status")
        except LarreyError:
            return {}
        return found

    def until(self, holds: Callable[[], bool], limit_s: float = _LIMIT_S) -> None:
        """Return as soon as something holds."""
        end = time.monotonic() + limit_s
        while not holds():
            is_dead = any(process.poll() is not None for process in self._running.values())
            if is_dead or time.monotonic() > end:
                logs = "".join(file.read_text()[-2000:] for file in self.folder.glob("*.log"))
                raise LarreyError(
                    "not-come-true", f"a program ended, or {limit_s:g} s passed: {logs}"
                )
            time.sleep(0.02)


def measure() -> dict[str, float]:
    """Return ``join_commands`` and ``join_seconds`` of one hospital that joins."""
    with tempfile.TemporaryDirectory() as name, Trial(Path(name)) as trial:
        invitation, home, data = trial.invite("hospital"), Path(name) / "node", Path(name) / "c.csv"
        data.write_text("pid,y\n")
        settings = str(home / "site.toml")
        join = ("larrey-site", "join", str(invitation), "--dir", str(home), "--yes")
        commands = [(*join, "--data", str(data)), ("larrey-site", "run", "--config", settings)]
        began = time.monotonic()
        trial.run(*commands[0])
        silence(home / "site.toml")
        trial.start("hospital", *commands[1])
        trial.until(lambda: bool(trial.status(home).get("is_connected")))
        seconds = time.monotonic() - began
    return {"join_commands": float(len(commands)), "join_seconds": seconds}


def silence(settings: Path) -> None:
    """Switch the metrics port off, so that several programs run on one machine."""
    lines = settings.read_text().splitlines()
    kept = ['metrics = ""' if line.startswith("metrics = ") else line for line in lines]
    settings.write_text("\n".join(kept) + "\n")


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


if __name__ == "__main__":
    print(measure())
