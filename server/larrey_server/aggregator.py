"""The coordinator's handle on the aggregation worker: starts it, feeds it, brings it back.

Requests are served one after the other by one thread that talks to the worker over pipes. A worker
that dies takes nothing with it: the request is asked again of a new one, up to three times (results
are deterministic, files appear whole or not at all), then answered with a code. One that hangs is
killed after a time that follows from the bytes it has to read and write.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from larrey_protocol.tensors import TensorLayout
from larrey_server.aggregation import Averaging, to_json

__all__ = ["Aggregator", "Averaging", "Outcome", "patience"]

logger = logging.getLogger(__name__)
_TRIES = 4  # that workers are killed is seldom the request's doing, and never to be a site's fault
_START_S = 60.0  # a new worker's imports on a busy machine, and one slow fsync
_LONGEST_WAIT_S = 60.0  # at once; poll(2) takes no more than 24 days
_BLOCK_BYTES = 1 << 16
_MOST_PASSES = 2  # over the updates
_MOST_VECTORS = 4  # that a strategy keeps; each is read, written and sent
_SLOWEST_BYTES_PER_S = 4 << 20  # far below any disk that a coordinator should run on


def patience(nbytes: int) -> float:
    """Return after how many seconds a worker that reads and writes ``nbytes`` counts as hung."""
    return _START_S + nbytes / _SLOWEST_BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the worker answered; ``code`` is empty when all is well."""

    code: str = ""
    digest: str = ""  # of the new model file
    memory: str = ""  # digest of what the strategy keeps, empty where it keeps nothing
    request: str = ""  # digest of what sites get in the model's place, empty if nothing else
    norm: float = 0.0  # of a checked update, L2


@dataclass(frozen=True, slots=True)
class _Request:
    line: bytes
    nbytes: int  # that it reads and writes
    done: Callable[[Outcome], None]


class Aggregator:
    """One worker process; methods are thread-safe, callbacks come from its own thread."""

    def __init__(self, limit_s: Callable[[int], float] = patience) -> None:
        self._limit_s = limit_s
        self._inbox: SimpleQueue[_Request | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._swap = threading.Lock()  # while the worker is exchanged for a new one
        self._worker = _spawn()
        self._thread = threading.Thread(target=self._serve, name="aggregator", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, limit_s: Callable[[int], float] = patience) -> Aggregator:
        """Return a running worker; ``limit_s`` turns a request's bytes into its time."""
        return cls(limit_s)

    @property
    def pid(self) -> int:
        """Return the worker's process id, for measurement."""
        return self._worker.pid

    def check(
        self, path: Path, layout: TensorLayout, norm_bound: float, done: Callable[[Outcome], None]
    ) -> None:
        """Have one spooled update checked (`larrey_protocol.envelope`); never blocks."""
        body = {
            "op": "check",
            "path": str(path),
            "layout": layout.entries,
            "encoding": layout.encoding,
            "norm_bound": norm_bound,
        }
        self._put(body, layout.nbytes, done)

    def aggregate(self, averaging: Averaging, done: Callable[[Outcome], None]) -> None:
        """Have one round aggregated; never blocks."""
        files = _MOST_PASSES * len(averaging.updates) + 2 + 3 * _MOST_VECTORS
        self._put(to_json(averaging), files * averaging.layout.nbytes, done)

    def stop(self) -> None:
        """End the worker; what it had not answered is answered ``aggregator-stopped``."""
        with self._swap:
            self._stopping.set()
            self._worker.kill()
        self._inbox.put(None)
        self._thread.join()

    def _put(
        self,
        body: dict[str, Any],  # Any: JSON
        nbytes: int,
        done: Callable[[Outcome], None],
    ) -> None:
        self._inbox.put(_Request(json.dumps(body).encode() + b"\n", nbytes, done))

    def _serve(self) -> None:
        while (request := self._inbox.get()) is not None:
            request.done(self._ask(request))
        while not self._inbox.empty():
            if (request := self._inbox.get()) is not None:
                request.done(Outcome("aggregator-stopped"))
        _reap(self._worker)

    def _ask(self, request: _Request) -> Outcome:
        """Return the worker's answer, of a further worker if one dies or hangs."""
        for _ in range(_TRIES):
            answer = _exchange(self._worker, request.line, self._limit_s(request.nbytes))
            with self._swap:
                if self._stopping.is_set():
                    return Outcome("aggregator-stopped")
                if answer:
                    return Outcome(**json.loads(answer))
                _reap(self._worker)
                logger.error("aggregation worker died status=%s", self._worker.returncode)
                try:
                    self._worker = _spawn()
                except OSError:  # no process or memory left; the next request tries again
                    logger.exception("aggregation worker not started")
                    break
        return Outcome("aggregation-crashed")


def _spawn() -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "larrey_server.aggregation", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    os.set_blocking(_pipes(worker)[0].fileno(), False)
    return worker


def _exchange(worker: subprocess.Popen[bytes], line: bytes, limit_s: float) -> bytes:
    """Return the answer to one request, empty if the worker is gone.

    One that takes too long to read or to answer is killed.
    """
    stdin, stdout = _pipes(worker)
    if stdin.closed:  # reaped, and no new one could be started
        return b""
    end, unsent, answer = time.monotonic() + limit_s, memoryview(line), b""
    try:
        while unsent and _is_ready(stdin, select.POLLOUT, end):
            unsent = unsent[os.write(stdin.fileno(), unsent) :]
    except BrokenPipeError:
        return b""
    while not answer.endswith(b"\n"):
        is_hung = not _is_ready(stdout, select.POLLIN, end)
        block = b"" if is_hung else os.read(stdout.fileno(), _BLOCK_BYTES)
        if not block:
            worker.kill()
            return b""
        answer += block
    return answer


def _is_ready(pipe: IO[bytes], event: int, end: float) -> bool:
    """Return whether a pipe is ready, or its other end gone, before the time is over."""
    ready = select.poll()
    ready.register(pipe, event)
    while (left := end - time.monotonic()) > 0:
        if ready.poll(1000 * min(left, _LONGEST_WAIT_S)):
            return True
    return False


def _pipes(worker: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if worker.stdin is None or worker.stdout is None:
        raise ValueError("the worker was started with pipes")
    return worker.stdin, worker.stdout


def _reap(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                logger.debug("unsent request of a dead worker dropped")
