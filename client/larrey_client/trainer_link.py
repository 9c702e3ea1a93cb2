"""The agent's handle on its trainer process: start, load, train, stop.

Imports neither torch nor numpy. A trainer that dies or hangs costs one answer, never the agent: the
handle reports it by code, and the next use starts a fresh process and loads the study again. So
does a data file that the running process was not given to read.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from larrey_client.confinement.barriers import Isolation
from larrey_client.frames import (
    PeerClosed,
    is_sealed,
    memory_file,
    receive_frame,
    seal,
    send_frame,
)
from larrey_client.trainer_process import Limits, TrainerProcess
from larrey_protocol.canonical import canonical_json
from larrey_protocol.errors import DataError, LarreyError, TransportError
from larrey_protocol.study import Study

__all__ = ["TrainTask", "TrainerLink"]

logger = logging.getLogger(__name__)
_LOAD_TIMEOUT_S = 3600.0  # a large Parquet file on a slow disk
# All that a trainer may say went wrong, since a code may leave the site: another word from it would
# be a message. What is wrong with the data (DataError) has one code outside, whatever it says.
_CODES = frozenset(
    {
        "app-failed",
        "app-not-found",
        "data-path-missing",
        "gradient-missing",
        "gradients-pending",
        "load-malformed",
        "loss-couples-patients",
        "message-malformed",
        "model-buffers",
        "model-couples-patients",
        "model-malformed",
        "noise-missing",
        "plan-impossible",
        "reply-wrong-metrics",
        "reply-wrong-tensors",
        "site-not-invited",
        "trainer-failed",
    }
)
_KindT = TypeVar("_KindT", int, str)


@dataclass(frozen=True, slots=True)
class TrainTask:
    """Which training is asked for."""

    study: str  # digest
    round: int
    phase: str
    site: str
    sequence: int = 0  # of the reservation in the ledger; goes into the keys of the noise


@dataclass(frozen=True, slots=True)
class _Load:
    """What a trainer was told to load; kept so that a fresh process can be told again."""

    study: Study = field(compare=False)
    digest: str
    site: str
    data: Path
    app: str | None
    fingerprint: str

    def frame(self) -> dict[str, Any]:
        return {
            "op": "load",
            "digest": self.digest,
            "site": self.site,
            "data": str(self.data),
            "app": self.app,
        }


class TrainerLink:
    """One trainer process, used by one thread at a time; `stop` may come from any thread."""

    def __init__(self, limits: Limits, *, warm: bool) -> None:
        self._limits, self._warm = limits, warm
        self._turn = threading.RLock()  # so that a signal handler may stop what its thread asked
        self._stopped = threading.Event()
        self._process: TrainerProcess | None = None
        self._loaded: _Load | None = None
        self._units = 0

    @classmethod
    def start(cls, limits: Limits | None = None, *, warm: bool = True) -> TrainerLink:
        """Return a handle on a process just started; it does not wait for the process.

        Args:
            limits: what it may have; by default one thread on the CPU.
            warm: import torch at once, in the background, so that the first round is fast; False
                where only standard apps run, which may not need torch at all.
        """
        link = cls(limits or Limits(), warm=warm)
        link._running()
        return link

    @property
    def alive(self) -> bool:
        """Return whether the process runs; a dead one is replaced at the next use."""
        return self._process is not None and self._process.alive

    @property
    def pid(self) -> int:
        """Return the process id, 0 before the first start; for the operator's eyes."""
        return self._process.pid if self._process else 0

    @property
    def isolation(self) -> Isolation | None:
        """Return which barriers stand around the process, None until it said so."""
        return self._process.isolation if self._process else None

    def load(
        self, study: Study, *, site: str, data: Path, app: str | None = None, salt: bytes = b""
    ) -> int:
        """Check ``data`` against the study's contract, keep it ready, return its number of units.

        The number is exact and private: it stays at the site. The same study over an unchanged
        file is a no-op. ``app`` names a standard Flower ClientApp, "module:attribute".

        Args:
            study: with its contract.
            site: this site's name in the study.
            data: CSV or Parquet.
            app: None for Larrey's own.
            salt: secret of the site that keys the file's fingerprint; never reaches noise.

        Raises:
            DataError: the file does not meet the contract; the code names the rule.
            LarreyError: ``trainer-crashed``, ``trainer-timeout`` or ``trainer-failed``.
        """
        data = data.absolute()
        wish = _Load(study, study.digest, site, data, app, _fingerprint(data, salt))
        with self._turn:
            process = self._reading(data)
            if wish == self._loaded and not process.fresh:
                return self._units
            self._loaded = None
            self._units = self._load(process, wish)
            self._loaded = wish
            return self._units

    def train(self, task: TrainTask, model: int, *, timeout_s: float) -> int:
        """Return a sealed memory file with the update to ``model``; the caller closes it.

        Args:
            task: must name the loaded study.
            model: descriptor of the model file, unchanged meanwhile; the caller keeps it.
            timeout_s: after that the process is killed.

        Raises:
            LarreyError: ``trainer-crashed``, ``trainer-timeout``, ``trainer-failed``,
                ``study-not-loaded``, or the code of the rule that refused the model.
            DataError: a restarted process found that the data no longer meet the contract.
        """
        deadline = time.monotonic() + timeout_s
        with self._turn:
            process = self._running()
            if self._loaded is None or self._loaded.digest != task.study:
                raise LarreyError("study-not-loaded", "the trainer holds another study")
            if process.fresh:
                self._load(process, self._loaded)
            frame = {"op": "train", **asdict(task)}
            answer, fds = self._ask(process, frame, [model], deadline)
        return _only_update(answer, fds)

    def stop(self) -> None:
        """End the process at once, whatever it does; the handle cannot be used again."""
        self._stopped.set()
        process = self._process
        if process is not None:
            process.kill()  # wakes a thread that waits for an answer
            with self._turn:
                process.close()

    def _reading(self, data: Path) -> TrainerProcess:
        """Return a process that may open ``data``, which nobody can allow to one that runs."""
        process = self._running()
        if not process.may_read(data):
            process.close()
            readable = dict.fromkeys([*self._limits.readable, data])
            self._limits = replace(self._limits, readable=tuple(readable))
            process = self._running()
        return process

    def _running(self) -> TrainerProcess:
        """Return the process, started anew if it is dead."""
        if self._stopped.is_set():
            raise LarreyError("trainer-stopped", "the trainer was stopped")
        if self._process is None or not self._process.alive:
            if self._process is not None:
                logger.warning("trainer restarted pid=%d", self._process.pid)
                self._process.close()
            self._process = TrainerProcess(self._limits, warm=self._warm)
            if self._stopped.is_set():  # `stop` came between the check and the start
                self._process.close()
        return self._process

    def _load(self, process: TrainerProcess, wish: _Load) -> int:
        document = seal(memory_file("study", [_document(wish.study)]))
        try:
            deadline = time.monotonic() + _LOAD_TIMEOUT_S
            answer, fds = self._ask(process, wish.frame(), [document], deadline)
        finally:
            os.close(document)
        _close(fds)
        process.fresh = False
        return _field(answer, "units", int)

    def _ask(
        self, process: TrainerProcess, frame: dict[str, Any], fds: Sequence[int], deadline: float
    ) -> tuple[dict[str, Any], list[int]]:
        """Return the process's answer; a process that fails to give one is killed."""
        try:
            process.greeted.wait(max(0.0, deadline - time.monotonic()))
            send_frame(process.socket, frame, fds)
            answer, files = receive_frame(process.socket, deadline=deadline)
        except (TransportError, OSError) as error:  # TimeoutError is an OSError
            process.close()
            raise self._lost(error) from error
        if "code" in answer:
            _close(files)
            failure = _failure(answer)
            if failure.code == "trainer-failed":  # out of memory, say: nobody knows what it is now
                process.close()
            raise failure
        return answer, files

    def _lost(self, error: Exception) -> LarreyError:
        if self._stopped.is_set():
            return LarreyError("trainer-stopped", "the trainer was stopped")
        if isinstance(error, TimeoutError):
            return LarreyError("trainer-timeout", "the trainer gave no answer in time; it is ended")
        if isinstance(error, PeerClosed):
            return LarreyError("trainer-crashed", "the trainer ended without an answer")
        return LarreyError("trainer-failed", "the trainer broke the frame protocol; it is ended")


def _fingerprint(data: Path, salt: bytes) -> str:
    """Return what changes when the file is replaced or written; "" where there is none."""
    try:
        facts = data.stat()
    except OSError:
        return ""  # the trainer will say what is wrong
    text = f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    return blake2b(text.encode(), key=salt[:64]).hexdigest()


def _document(study: Study) -> bytes:
    return canonical_json(study.model_dump(mode="json", by_alias=True))


def _failure(answer: dict[str, Any]) -> LarreyError:
    """Return the error that the trainer reports; an ill-formed report is a failure too."""
    kind = DataError if answer.get("kind") == "data" else LarreyError
    if kind is LarreyError and answer["code"] not in _CODES:
        return LarreyError("trainer-failed", "the trainer reported a code that it does not have")
    try:
        return kind(
            str(answer["code"]), str(answer.get("message", "")), str(answer.get("next_step", ""))
        )
    except ValueError:
        return LarreyError("trainer-failed", "the trainer reported an ill-formed code")


def _only_update(answer: dict[str, Any], fds: list[int]) -> int:
    if len(fds) == 1 and is_sealed(fds[0]):
        return fds[0]
    _close(fds)
    raise LarreyError("trainer-failed", f"the trainer sent {len(fds)} files, expected one sealed")


def _field(answer: dict[str, Any], name: str, kind: type[_KindT]) -> _KindT:
    value = answer.get(name)
    if not isinstance(value, kind):
        raise LarreyError("trainer-failed", f"the trainer's answer lacks '{name}'")
    return value


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
