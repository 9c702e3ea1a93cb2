"""The aggregation worker: checks updates and turns a round's updates into the next model.

A process of its own (``python -m larrey_server.aggregation``), so that the serving process never
stalls. Requests and answers are JSON lines on its standard input and output; tensors stay in files.
It works block by block with `larrey_strategies`, in roster order, so that its memory does not grow
with the model or the number of sites and its result has the same bits on every run. It reads into
buffers it reuses (no mapping: mapped pages count as memory), and writes to a new file that takes
its name only when it is whole and on disk. Encoded updates are decoded stretch by stretch.
No torch, no network, no keys.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.encodings import BLOCK, Encoding, decode
from larrey_protocol.envelope import check_update, read_encoded
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.tensors import TensorLayout
from larrey_protocol.waypoints import reached
from larrey_strategies.contract import State, Strategy, Vector
from larrey_strategies.mean import weighted_mean
from larrey_strategies.registry import make_strategy

__all__ = ["Averaging", "average", "from_json", "sync_folder", "to_json"]

_BLOCK_BYTES = 256 << 10  # all buffers of a few sites fit the second-level cache
_BUFFERS_BYTES = 16 << 20  # of all sites together
_ITEM = 4  # bytes of a float32
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NICENESS = 10  # whoever serves the sites goes first where cores are few


@dataclass(frozen=True, slots=True)
class Averaging:
    """One round's aggregation: files in, files out.

    ``updates`` are (file, weight) in roster order, all in one ``encoding``; weights are
    renormalised over them. ``state`` and ``new_state`` hold what the strategy keeps between rounds,
    one vector a name; without ``state`` the strategy starts afresh.
    """

    layout: TensorLayout
    updates: tuple[tuple[Path, float], ...]
    model: Path
    new_model: Path
    strategy: str
    parameters: Mapping[str, float]
    state: Path | None
    new_state: Path
    encoding: Encoding = "float32"

    @property
    def update_layout(self) -> TensorLayout:
        """Return the layout of each update's file."""
        return replace(self.layout, encoding=self.encoding)


def average(job: Averaging) -> str:
    """Return the digest of the new model file, now durable under its name.

    The state file takes its name before the model, and is not written without state.

    Raises:
        IntegrityError: ``file-changed`` if an input has not the size that its layout says.
        UsageError: as `make_strategy`.
        OSError: a file cannot be read or written; nothing takes a new name then.
    """
    strategy = make_strategy(job.strategy, job.parameters)
    names = tuple(sorted(strategy.init(np.zeros(1, np.float32))))
    kept = _state_layout(names, job.layout.size)
    with ExitStack() as stack:
        sources = _Sources(
            model=stack.enter_context(_reading(job.model, job.layout)),
            updates=[stack.enter_context(_reading(p, job.update_layout)) for p, _ in job.updates],
            state=stack.enter_context(_reading(job.state, kept)) if job.state and names else None,
            encoded=None if job.encoding == "float32" else job.update_layout,
        )
        model = stack.enter_context(_replacing(job.new_model, job.layout))
        vectors = stack.enter_context(_replacing(job.new_state, kept)) if names else None
        weights = [weight for _, weight in job.updates]
        for start, count in _stretches(job.layout.size, len(weights)):
            block = sources.read(job.layout, kept, start, count)
            params, state = _step(strategy, block, weights)
            reached("aggregator.block-summed")
            model.append(params)
            if vectors is not None:
                for index, name in enumerate(names):
                    vectors.put(state[name], index * job.layout.size + start)
        return f"sha256:{model.digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class _Block:
    """The same stretch of the model, of each update and of the strategy's vectors."""

    params: Vector
    updates: Sequence[Vector]
    state: State | None
    mean: Vector
    scratch: Vector


def _step(strategy: Strategy, block: _Block, weights: Sequence[float]) -> tuple[Vector, State]:
    mean = weighted_mean(block.updates, weights, out=block.mean, scratch=block.scratch)
    state = strategy.init(block.params) if block.state is None else block.state
    return strategy.step(block.params, state, mean)


class _Sources:
    """Open input files and the buffers they are read into."""

    def __init__(
        self,
        model: int,
        updates: Sequence[int],
        state: int | None,
        encoded: TensorLayout | None,
    ) -> None:
        self._model, self._updates, self._state = model, updates, state
        self._encoded = encoded  # layout of the updates; None where they are float32
        self._buffers: list[NDArray[np.float32]] = []

    def read(self, layout: TensorLayout, kept: TensorLayout, start: int, count: int) -> _Block:
        """Return ``count`` elements from ``start`` of every file; valid until the next call."""
        wanted = len(self._updates) + len(kept.entries) + 3
        if not self._buffers:
            self._buffers = [np.empty(count, np.float32) for _ in range(wanted)]
        free = iter([buffer[:count] for buffer in self._buffers])
        offset = len(layout.header) + start * _ITEM
        params = _fill(self._model, next(free), offset)
        if self._encoded is None:
            updates = [_fill(source, next(free), offset) for source in self._updates]
        else:
            updates = [_decoded(s, next(free), self._encoded, start) for s in self._updates]
        mean, scratch = next(free), next(free)
        if self._state is None:
            return _Block(params, updates, None, mean, scratch)
        state = {}
        for index, (name, _) in enumerate(kept.entries):
            place = len(kept.header) + (index * layout.size + start) * _ITEM
            state[name] = _fill(self._state, next(free), place)
        return _Block(params, updates, state, mean, scratch)


class _Output:
    """A tensor file being written; its digest grows with it."""

    def __init__(self, descriptor: int, layout: TensorLayout) -> None:
        self._descriptor = descriptor
        self._start = len(layout.header)
        self.digest = hashlib.sha256(layout.header)
        self._end = self._start
        _write(descriptor, memoryview(layout.header), 0)

    def append(self, values: Vector) -> None:
        """Write the next elements."""
        data = _bytes(values)
        self.digest.update(data)
        _write(self._descriptor, data, self._end)
        self._end += len(data)

    def put(self, values: Vector, index: int) -> None:
        """Write elements from ``index``; the digest does not follow."""
        _write(self._descriptor, _bytes(values), self._start + index * _ITEM)


def _stretches(size: int, sites: int) -> Iterator[tuple[int, int]]:
    """Yield (start, count) of blocks, the first the longest; each begins an encoding's block."""
    count = min(_BLOCK_BYTES, _BUFFERS_BYTES // max(1, sites)) // _ITEM
    count = max(BLOCK, count // BLOCK * BLOCK)
    for start in range(0, size, count):
        yield start, min(count, size - start)


def _state_layout(names: tuple[str, ...], size: int) -> TensorLayout:
    return TensorLayout(tuple((name, (size,)) for name in names))


@contextmanager
def _reading(path: Path, layout: TensorLayout) -> Iterator[int]:
    """Open a tensor file that has been checked before; look at its size and header again."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        same_size = os.fstat(descriptor).st_size == layout.nbytes
        if not same_size or os.pread(descriptor, len(layout.header), 0) != layout.header:
            raise IntegrityError("file-changed", "a tensor file is not what was checked before")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _replacing(path: Path, layout: TensorLayout) -> Iterator[_Output]:
    """Write a file that appears under its name whole and durable, or not at all."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield _Output(descriptor, layout)
        os.fsync(descriptor)
        reached("aggregator.model-written")
        part.replace(path)
        reached("aggregator.model-renamed")
        sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, buffer: NDArray[np.float32], offset: int) -> Vector:
    view, done = buffer.data.cast("B"), 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise IntegrityError("file-changed", "a tensor file became shorter while it was read")
        done += count
    return buffer


def _decoded(
    descriptor: int, buffer: NDArray[np.float32], layout: TensorLayout, start: int
) -> Vector:
    try:
        scales, codes = read_encoded(descriptor, layout, start, buffer.size)
    except Refusal as error:
        raise IntegrityError("file-changed", "an update became shorter meanwhile") from error
    return decode(scales, codes, buffer)


def _bytes(values: Vector) -> memoryview:
    return np.ascontiguousarray(values, "<f4").data.cast("B")


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


def to_json(job: Averaging) -> dict[str, Any]:  # Any: JSON
    """Return the request that makes the worker do ``job``."""
    return {
        "op": "average",
        "layout": job.layout.entries,
        "updates": [(str(path), weight) for path, weight in job.updates],
        "model": str(job.model),
        "new_model": str(job.new_model),
        "strategy": job.strategy,
        "parameters": dict(job.parameters),
        "state": str(job.state) if job.state else None,
        "new_state": str(job.new_state),
        "encoding": job.encoding,
    }


def from_json(body: Mapping[str, Any]) -> Averaging:  # Any: JSON
    """Return the job of a request."""
    return Averaging(
        layout=_layout(body["layout"]),
        updates=tuple((Path(path), float(weight)) for path, weight in body["updates"]),
        model=Path(body["model"]),
        new_model=Path(body["new_model"]),
        strategy=body["strategy"],
        parameters=body["parameters"],
        state=Path(body["state"]) if body["state"] else None,
        new_state=Path(body["new_state"]),
        encoding=body["encoding"],
    )


def _layout(
    entries: Sequence[tuple[str, Sequence[int]]], encoding: Encoding = "float32"
) -> TensorLayout:
    return TensorLayout(tuple((name, tuple(shape)) for name, shape in entries), encoding)


def _check(body: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    descriptor = os.open(body["path"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        layout = _layout(body["layout"], body["encoding"])
        facts = check_update(descriptor, layout, norm_bound=body["norm_bound"])
        reached("aggregator.update-checked")
    finally:
        os.close(descriptor)
    return {"norm": facts.norm}


def _answer(body: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Return the answer to one request; a failure is a code."""
    try:
        if body["op"] == "check":
            return _check(body)
        job = from_json(body)
        return {"digest": average(job), "memory": _digest_of(job.new_state)}
    except LarreyError as error:
        return {"code": error.code}
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return {"code": "disk-full" if full else "aggregation-failed"}


def _digest_of(state: Path) -> str:
    """Return the digest of what the strategy keeps, empty where it keeps nothing."""
    if not state.is_file():
        return ""
    with open(state, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer one request a line until the requests end."""
    for line in requests:
        answers.write(json.dumps(_answer(json.loads(line))).encode() + b"\n")
        answers.flush()
        reached("aggregator.answered")


def _die_with_parent(parent: int) -> None:
    """End this process when the coordinator is killed, in whatever it does.

    Else a worker that hung or was slow could give its file the name of a later one's.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _main() -> None:
    _die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator ends it by closing the pipe
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one descriptor a site
    os.nice(_NICENESS)
    reached("aggregator.started")
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    _main()
