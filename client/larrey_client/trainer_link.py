"""The agent's handle on its trainer process: start, load, train, stop.

Imports neither torch nor numpy. A trainer that dies or hangs costs one answer, never the agent: the
handle reports it by code, and the next use starts a fresh process and loads the study again. So
does a data file that the running process was not given to read.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from larrey_client.confinement.barriers import Isolation
from larrey_client.data.files import file_state
from larrey_client.data.identity import pack_hashes
from larrey_client.data.reading import PLAIN, Reading
from larrey_client.frames import (
    PeerClosed,
    memory_file,
    receive_frame,
    seal,
    send_frame,
)
from larrey_client.shared_memory import shared_memory_full
from larrey_client.trainer_answers import (
    close_files,
    failure_of,
    field_of,
    hashes_of,
    scores_of,
    sealed_files,
)
from larrey_client.trainer_process import Limits, TrainerProcess
from larrey_client.trainer_tasks import Loaded, PersonalTask, TrainTask
from larrey_protocol.canonical import canonical_json
from larrey_protocol.errors import DataError, LarreyError, TransportError
from larrey_protocol.study import Study

__all__ = ["Loaded", "PersonalTask", "TrainTask", "TrainerLink"]

logger = logging.getLogger(__name__)
_UNSURE = frozenset({"trainer-failed", "device-lost", "shared-memory-full"})
_LOAD_TIMEOUT_S = 3600.0  # a large Parquet file on a slow disk


@dataclass(frozen=True, slots=True)
class _Load:
    """What a trainer was told to load; kept so that a fresh process can be told again."""

    study: Study = field(compare=False)
    digest: str
    site: str
    data: Path
    app: str | None
    reading: Reading
    fingerprint: str

    def frame(self) -> dict[str, Any]:
        return {
            "op": "load",
            "digest": self.digest,
            "site": self.site,
            "data": str(self.data),
            "root": str(self.reading.root) if self.reading.root else "",
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
        self._found = Loaded(0, "")
        self._study = ""  # digest of what the process holds or is loading
        self._barred: set[str] = set()  # studies that were interrupted and not admitted since
        self._admitted: set[str] = set()  # since all were interrupted

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
        self,
        study: Study,
        *,
        site: str,
        data: Path,
        app: str | None = None,
        reading: Reading = PLAIN,
    ) -> Loaded:
        """Check ``data`` against the study's contract, keep it ready, return what was found.

        The same study over an unchanged file, read alike, is a no-op. ``app`` names a standard
        Flower ClientApp, "module:attribute".

        Args:
            study: with its contract.
            site: this site's name in the study.
            data: CSV or Parquet.
            app: None for Larrey's own.
            reading: whose rows are dropped, and the site's secret, which never reaches noise.

        Raises:
            DataError: the file does not meet the contract; the code names the rule, or is
                ``contract-unmet`` and the message names all that fail.
            LarreyError: ``trainer-crashed``, ``trainer-timeout`` or ``trainer-failed``.
        """
        data = data.absolute()
        mark = _fingerprint(data, reading.secret)
        wish = _Load(study, study.digest, site, data, app, reading, mark)
        with self._turn:
            process = self._reading(data, reading.root)
            if wish == self._loaded and not process.fresh:
                return self._found
            self._loaded, self._study = None, wish.digest
            self._found = self._load(process, wish)
            self._loaded = wish
            return self._found

    def scan(self, source: Path, unit: str, salt: bytes) -> bytes:
        """Return who is in a source: hashes of 16 bytes, sorted, each once (`data.identity`).

        Needs no contract and disturbs no loaded study. Private: it stays at the site.

        Args:
            source: CSV or Parquet.
            unit: the column with the identifiers.
            salt: secret of the site that keys the hashes.

        Raises:
            DataError: ``column-missing``, or the source cannot be read.
            LarreyError: ``trainer-crashed``, ``trainer-timeout`` or ``trainer-failed``.
        """
        source = source.absolute()
        frame = {"op": "scan", "data": str(source), "unit": unit}
        with self._turn:
            process = self._reading(source)
            deadline = time.monotonic() + _LOAD_TIMEOUT_S
            answer, fds = self._ask_with(process, frame, [salt], deadline)
        return hashes_of(answer, fds)

    def train(self, task: TrainTask, model: int, *, timeout_s: float) -> int:
        """Return a sealed memory file with the update to ``model``; the caller closes it.

        Args:
            task: must name the loaded study.
            model: descriptor of the model file, unchanged meanwhile; the caller keeps it.
            timeout_s: after that the process is killed.

        Raises:
            LarreyError: ``trainer-crashed``, ``trainer-timeout``, ``trainer-failed``,
                ``device-lost``, ``shared-memory-full``, ``trainer-interrupted``,
                ``study-not-loaded``, or the code of the rule that refused the model.
            DataError: a restarted process found that the data no longer meet the contract.
        """
        return self._train(task, [model], 1, timeout_s)[0]

    def train_keeping(
        self, task: TrainTask, model: int, state: int | None, *, timeout_s: float
    ) -> tuple[int, int]:
        """Return as `train` the update, and what the site keeps once it was applied.

        Args:
            task: as `train`, of a study whose objective keeps state at the site.
            model: as `train`.
            state: descriptor of what is kept now, None before the first; the caller keeps it.
            timeout_s: as `train`.

        Raises:
            LarreyError: as `train`; ``state-malformed``.
            DataError: as `train`.
        """
        files = [model] if state is None else [model, state]
        update, after = self._train(task, files, 2, timeout_s)
        return update, after

    def personalise(
        self, task: PersonalTask, final: int, *, timeout_s: float
    ) -> tuple[int, dict[str, float]]:
        """Return a sealed file with a model of the site's own, and scores; neither may leave.

        Args:
            task: must name the loaded study.
            final: descriptor of the study's final model; the caller keeps it.
            timeout_s: as `train`.

        Raises:
            LarreyError: as `train`.
            DataError: as `load`.
        """
        deadline = time.monotonic() + timeout_s
        with self._turn:
            process = self._running()
            if self._loaded is None or self._loaded.digest != task.study or process.fresh:
                raise LarreyError("study-not-loaded", "the trainer holds another study")
            if self._is_barred(task.study):
                raise self._lost(PeerClosed())
            reading = self._loaded.reading
            documents = [reading.secret, pack_hashes(reading.excluded)]
            files = [seal(memory_file("document", [document])) for document in documents]
            try:
                frame = {"op": "personalise", **asdict(task)}
                answer, fds = self._ask(process, frame, [final, *files], deadline)
            finally:
                close_files(files)
        (own,) = sealed_files(fds, 1)
        return own, scores_of(answer)

    def _train(
        self, task: TrainTask, files: Sequence[int], count: int, timeout_s: float
    ) -> list[int]:
        deadline = time.monotonic() + timeout_s
        with self._turn:
            process = self._running()
            if self._loaded is None or self._loaded.digest != task.study:
                raise LarreyError("study-not-loaded", "the trainer holds another study")
            if process.fresh and self._load(process, self._loaded) != self._found:
                self._loaded = None
                raise DataError("data-changed", "the rows changed since the round began")
            if self._is_barred(task.study):  # after the process is chosen, which a stop ends
                raise self._lost(PeerClosed())
            frame = {"op": "train", **asdict(task)}
            fds = self._ask(process, frame, files, deadline)[1]
        return sealed_files(fds, count)

    def stop(self) -> None:
        """End the process at once, whatever it does; the handle cannot be used again."""
        self._stopped.set()
        process = self._process
        if process is not None:
            process.kill()  # wakes a thread that waits for an answer
            with self._turn:
                process.close()

    def interrupt(self, study: str = "") -> None:
        """End the process at once if it holds this study; the next use starts a fresh one.

        Training of the study ("" for any) fails with ``trainer-interrupted`` until it is admitted
        again, so that a stop between the gate and the training is not missed. From any thread.
        """
        self._barred.add(study)
        if study:
            self._admitted.discard(study)
        else:
            self._admitted.clear()
        process = self._process
        if process is not None and study in {"", self._study}:
            process.kill()

    def admit(self, study: str) -> None:
        """Let this study train again; to be called before it is asked whether it may."""
        self._barred.discard(study)
        self._admitted.add(study)

    def _is_barred(self, study: str) -> bool:
        return study in self._barred or ("" in self._barred and study not in self._admitted)

    def _reading(self, *data: Path | None) -> TrainerProcess:
        """Return a process that may open ``data``, which nobody can allow to one that runs."""
        process, places = self._running(), [place for place in data if place]
        if not all(process.may_read(place) for place in places):
            process.close()
            readable = dict.fromkeys([*self._limits.readable, *places])
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

    def _load(self, process: TrainerProcess, wish: _Load) -> Loaded:
        excluded = pack_hashes(wish.reading.excluded)
        documents = [_document(wish.study), wish.reading.secret, excluded]
        deadline = time.monotonic() + _LOAD_TIMEOUT_S
        answer, fds = self._ask_with(process, wish.frame(), documents, deadline)
        close_files(fds)
        process.fresh = False
        return Loaded(
            field_of(answer, "units", int),
            field_of(answer, "content", str),
            field_of(answer, "excluded", int),
        )

    def _ask_with(
        self,
        process: TrainerProcess,
        frame: dict[str, Any],
        documents: Sequence[bytes],
        deadline: float,
    ) -> tuple[dict[str, Any], list[int]]:
        """Return the answer to a frame with documents, which travel as sealed memory files."""
        files = [seal(memory_file("document", [document])) for document in documents]
        try:
            return self._ask(process, frame, files, deadline)
        finally:
            close_files(files)

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
            close_files(files)
            failure = failure_of(answer)
            if failure.code in _UNSURE:  # nobody knows what it is now
                process.close()
            raise failure
        return answer, files

    def _lost(self, error: Exception) -> LarreyError:
        if self._stopped.is_set():
            return LarreyError("trainer-stopped", "the trainer was stopped")
        if self._is_barred(self._study):
            return LarreyError("trainer-interrupted", "a person stopped the study meanwhile")
        if isinstance(error, TimeoutError):
            return LarreyError("trainer-timeout", "the trainer gave no answer in time; it is ended")
        if isinstance(error, PeerClosed):
            process = self._process
            if process is not None and process.ended_by == signal.SIGBUS:
                return shared_memory_full()
            return LarreyError("trainer-crashed", "the trainer ended without an answer")
        return LarreyError("trainer-failed", "the trainer broke the frame protocol; it is ended")


def _fingerprint(data: Path, salt: bytes) -> str:
    """Return what changes when the file is replaced or written; "" where there is none."""
    state = file_state(data)
    if not any(state):
        return ""  # the trainer will say what is wrong
    text = " ".join(map(str, state))
    return blake2b(text.encode(), key=salt[:64]).hexdigest()


def _document(study: Study) -> bytes:
    return canonical_json(study.model_dump(mode="json", by_alias=True))
