"""The aggregation worker: checks updates and turns a round's updates into the next model.

A process of its own (``python -m larrey_server.aggregation``), so that the serving process never
stalls. Requests and answers are JSON lines on its standard input and output; tensors stay in files
(`larrey_server.tensor_files`). It works stretch by stretch with `larrey_strategies.combining`, in
roster order, so that its memory does not grow with the model or the number of sites and its result
has the same bits on every run. Encoded updates are decoded stretch by stretch.
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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from larrey_protocol.encodings import Encoding
from larrey_protocol.envelope import check_update
from larrey_protocol.errors import LarreyError
from larrey_protocol.tensors import TensorLayout
from larrey_protocol.waypoints import reached
from larrey_server.tensor_files import Output, Stored, Updates, reading, replacing
from larrey_strategies.algorithm import Algorithm
from larrey_strategies.combining import settle, stretches
from larrey_strategies.contract import RoundFacts
from larrey_strategies.registry import AlgorithmWords, make_algorithm

__all__ = ["Averaging", "average", "from_json", "to_json"]

_MODEL = ""  # among the names of vectors
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NICENESS = 10  # whoever serves the sites goes first where cores are few


@dataclass(frozen=True, slots=True)
class Averaging:
    """One round's aggregation: files in, files out.

    ``updates`` are (file, weight) in roster order, all in one ``encoding``; weights are
    renormalised over them. ``state`` and ``new_state`` hold what the strategy keeps between rounds,
    one vector a name; without ``state`` the strategy starts afresh. Where some of it travels with
    the model, ``new_request`` is what sites get: the model's tensors, then one vector a name.
    """

    layout: TensorLayout
    updates: tuple[tuple[Path, float], ...]
    model: Path
    new_model: Path
    words: AlgorithmWords
    state: Path | None
    new_state: Path
    encoding: Encoding = "float32"
    facts: RoundFacts = field(default_factory=RoundFacts)
    new_request: Path | None = None

    @property
    def update_layout(self) -> TensorLayout:
        """Return the layout of each update's file."""
        return replace(self.layout, encoding=self.encoding)

    def request_layout(self, shared: Sequence[str]) -> TensorLayout:
        """Return the layout of what sites get (`larrey_protocol.models.request_layout`)."""
        vectors = tuple((f"shared.{name}", (self.layout.size,)) for name in shared)
        return replace(self.layout, entries=self.layout.entries + vectors)


def average(job: Averaging) -> str:
    """Return the digest of the new model file, now durable under its name.

    The state file takes its name first, then what sites get, and the model last; where there are
    no vectors for it, a file is not written.

    Raises:
        IntegrityError: ``file-changed`` if an input has not the size that its layout says.
        UsageError: as `make_algorithm`; ``too-few-updates`` as `settle`.
        OSError: a file cannot be read or written; nothing takes a new name then.
    """
    algorithm = make_algorithm(job.words)
    with ExitStack() as stack:
        inputs = _open_inputs(stack, job, algorithm)
        model = stack.enter_context(replacing(job.new_model, job.layout))
        _aggregate(job, algorithm, inputs, model, _open_vectors(stack, job, algorithm))
        return f"sha256:{model.digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class _Inputs:
    model: Stored
    updates: Updates
    state: Stored | None


@dataclass(frozen=True, slots=True)
class _Vectors:
    """A file that gets vectors of the strategy, one after the other; "" is the model."""

    file: Output
    names: tuple[str, ...]


def _open_inputs(stack: ExitStack, job: Averaging, algorithm: Algorithm) -> _Inputs:
    size, names = job.layout.size, _kept(algorithm)
    files = [stack.enter_context(reading(path, job.update_layout)) for path, _ in job.updates]
    file = stack.enter_context(reading(job.model, job.layout))
    model, state = Stored(file, job.layout, (_MODEL,), size), None
    if job.state and names:
        kept = _vectors_layout(names, size)
        state = Stored(stack.enter_context(reading(job.state, kept)), kept, names, size)
    return _Inputs(model, Updates(files, job.update_layout), state)


def _open_vectors(stack: ExitStack, job: Averaging, algorithm: Algorithm) -> list[_Vectors]:
    opened, names, shared = [], _kept(algorithm), algorithm.shared
    if shared and job.new_request:
        file = stack.enter_context(replacing(job.new_request, job.request_layout(shared)))
        opened.append(_Vectors(file, (_MODEL, *shared)))
    if names:
        layout = _vectors_layout(names, job.layout.size)
        file = stack.enter_context(replacing(job.new_state, layout))
        opened.append(_Vectors(file, names))
    return opened


def _aggregate(
    job: Averaging, algorithm: Algorithm, inputs: _Inputs, model: Output, extra: Sequence[_Vectors]
) -> None:
    size, weights = job.layout.size, [weight for _, weight in job.updates]
    read = inputs.updates.read
    settled = settle(algorithm.aggregator, weights, size, read)
    longest = next((count for _, count in stretches(size, len(weights))), 0)
    out, scratch = np.empty(longest, np.float32), np.empty(longest, np.float32)
    for start, count in stretches(size, len(weights)):
        aggregate = settled.combine(read, start, out=out[:count], scratch=scratch[:count])
        params = inputs.model.read(start, count)[_MODEL]
        state = inputs.state.read(start, count) if inputs.state else algorithm.init(params)
        params, state = algorithm.step(params, state, aggregate, job.facts)
        reached("aggregator.block-summed")
        model.append(params)
        for vectors in extra:
            for index, name in enumerate(vectors.names):
                values = params if name == _MODEL else state[name]
                vectors.file.put(values, index * size + start)


def _kept(algorithm: Algorithm) -> tuple[str, ...]:
    """Return the names of what the strategy keeps, in the order of the file."""
    return tuple(sorted(algorithm.init(np.zeros(1, np.float32))))


def _vectors_layout(names: Sequence[str], size: int) -> TensorLayout:
    return TensorLayout(tuple((name, (size,)) for name in names))


def to_json(job: Averaging) -> dict[str, Any]:  # Any: JSON
    """Return the request that makes the worker do ``job``."""
    return {
        "op": "average",
        "layout": job.layout.entries,
        "updates": [(str(path), weight) for path, weight in job.updates],
        "model": str(job.model),
        "new_model": str(job.new_model),
        "words": asdict(job.words),
        "state": str(job.state) if job.state else None,
        "new_state": str(job.new_state),
        "encoding": job.encoding,
        "facts": asdict(job.facts),
        "new_request": str(job.new_request) if job.new_request else None,
    }


def from_json(body: Mapping[str, Any]) -> Averaging:  # Any: JSON
    """Return the job of a request."""
    return Averaging(
        layout=_layout(body["layout"]),
        updates=tuple((Path(path), float(weight)) for path, weight in body["updates"]),
        model=Path(body["model"]),
        new_model=Path(body["new_model"]),
        words=AlgorithmWords(**body["words"]),
        state=Path(body["state"]) if body["state"] else None,
        new_state=Path(body["new_state"]),
        encoding=body["encoding"],
        facts=RoundFacts(**body["facts"]),
        new_request=Path(body["new_request"]) if body["new_request"] else None,
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
        digest = average(job)
        return {
            "digest": digest,
            "memory": _digest_of(job.new_state),
            "request": _digest_of(job.new_request) if job.new_request else "",
        }
    except LarreyError as error:
        return {"code": error.code}
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        return {"code": "disk-full" if full else "aggregation-failed"}


def _digest_of(vectors: Path) -> str:
    """Return the digest of a file of the strategy's vectors, empty where there are none."""
    if not vectors.is_file():
        return ""
    with open(vectors, "rb") as file:
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
