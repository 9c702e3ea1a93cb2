"""One operating-system process of the trainer: started, told how to confine itself, ended.

Its environment holds no secrets, the folder that it may write to goes with it, and it may read only
what was there when it started. It dies with the agent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from larrey_client.confinement.barriers import Isolation
from larrey_client.confinement.process import Plan, memory_limit
from larrey_client.frames import receive_frame, send_frame
from larrey_protocol.errors import LarreyError, TransportError

__all__ = ["Limits", "TrainerProcess"]

logger = logging.getLogger(__name__)
_KILL_GRACE_S = 5.0
_GREETING_S = 60.0  # a Python process on a busy machine


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trainer may have, beside what every Python process needs.

    Attributes:
        threads: of the numerical libraries.
        device: "cpu" or a torch device such as "cuda:0".
        memory_mb: of its own; None for what the machine has, less a headroom.
        readable: files and folders with rows; what is loaded is added.
        hidden: keys and state, which must stay closed to it.
        scratch: where its own folder to write to is made; None for the system's temporary folder.
    """

    threads: int = 1
    device: str = "cpu"
    memory_mb: int | None = None
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    scratch: Path | None = None


class TrainerProcess:
    """An operating-system process with a socket to it."""

    def __init__(self, limits: Limits, *, warm: bool) -> None:
        self.fresh = True  # has not loaded anything yet
        self.isolation: Isolation | None = None
        self.greeted = threading.Event()  # until then the socket is the keeper's
        self._scratch = tempfile.mkdtemp(prefix="larrey-trainer-", dir=limits.scratch)
        self._readable = frozenset(filter(None, map(_identity, limits.readable)))
        self._plan = _plan(limits, self._scratch)
        self.socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._command = _command(self._theirs.fileno(), warm=warm)
        self._environment = _environment(limits.threads) | {"TMPDIR": self._scratch}
        self._started = threading.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        # The kernel ends the trainer when the thread that started it ends (PR_SET_PDEATHSIG), so
        # a thread of its own starts it and lives as long as the process does.
        self._keeper = threading.Thread(target=self._keep, name="larrey-trainer", daemon=True)
        self._keeper.start()
        self._started.wait()
        self._theirs.close()
        if not self.pid:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise LarreyError("trainer-failed", "the trainer cannot be started") from self._error

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return self._popen is not None and self._popen.returncode is None

    @property
    def ended_by(self) -> int:
        """Return the signal that ended it; 0 while it runs or where it ended by itself."""
        code = self._popen.returncode if self._popen else None
        return -code if code is not None and code < 0 else 0

    @property
    def pid(self) -> int:
        """Return its id, 0 if it could not be started."""
        return self._popen.pid if self._popen else 0

    def may_read(self, data: Path) -> bool:
        """Return whether ``data``, or a folder above it, was there and allowed at the start.

        A file that is not there needs no other process to say so.
        """
        places = [data, *data.parents] if data.exists() else []
        return not places or any(_identity(place) in self._readable for place in places)

    def kill(self) -> None:
        """End the process, wake who waits for its answer, and wait until it is gone."""
        if self._popen is not None:
            self._popen.kill()  # harmless once it is reaped
        with contextlib.suppress(OSError):  # already shut down
            self.socket.shutdown(socket.SHUT_RDWR)
        self._keeper.join(_KILL_GRACE_S)

    def close(self) -> None:
        """End the process, give its socket back and delete what it wrote; nobody else uses it."""
        self.kill()
        self.socket.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _keep(self) -> None:
        try:
            process = subprocess.Popen(
                self._command,
                pass_fds=[self._theirs.fileno()],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a standard app may print; the agent's stdout is data
                cwd="/",
            )
        except OSError as error:
            self._error = error
            return
        else:
            self._popen = process
        finally:
            self._started.set()
        self._greet()
        process.wait()

    def _greet(self) -> None:
        """Tell the process how to confine itself and learn what stands, before it reads anything.

        Where that fails, whoever asks it next finds out.
        """
        with contextlib.suppress(TransportError, OSError):
            send_frame(self.socket, self._plan)
            answer, files = receive_frame(self.socket, deadline=time.monotonic() + _GREETING_S)
            for fd in files:
                os.close(fd)
            self.isolation = Isolation.parse(answer.get("isolation"))
            for name, reason in self.isolation.missing.items():
                logger.warning("trainer is not isolated barrier=%s reason=%r", name, reason)
        self.greeted.set()


def _plan(limits: Limits, scratch: str) -> dict[str, Any]:
    """Return the first frame: how the process confines itself."""
    plan = Plan(
        readable=tuple(map(str, limits.readable)),
        scratch=scratch,
        hidden=tuple(map(str, limits.hidden)),
        memory_bytes=memory_limit(limits.memory_mb),
        device=limits.device,
    )
    return asdict(plan)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what makes a file this file for the kernel; a replaced file is another."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _command(fd: int, *, warm: bool) -> list[str]:
    """Return the command line; -P keeps the working folder out of the import path."""
    flags = ["--warm"] if warm else []
    return [sys.executable, "-P", "-m", "larrey_client.trainer", str(fd), *flags]


def _environment(threads: int) -> dict[str, str]:
    """Return the trainer's whole environment: no secrets of the agent, no home folder."""
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "LC_ALL", "PYTHONPATH") if k in os.environ}
    count = str(threads)
    return kept | {
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "FLWR_TELEMETRY_ENABLED": "0",
    }
