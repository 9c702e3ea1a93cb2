"""The aggregation worker: its arithmetic, its files, and its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.encodings import Encoding, decode, encode
from larrey_protocol.errors import IntegrityError
from larrey_protocol.tensors import TensorLayout, pack
from larrey_server.aggregation import Averaging, average
from larrey_server.aggregator import Aggregator, Outcome, patience
from larrey_strategies.contract import RoundFacts
from larrey_strategies.registry import AlgorithmWords, make_algorithm
from tests.server.peers import until

SIZE = 150_001  # more than one stretch, and no multiple of one
LAYOUT = TensorLayout((("0.weight", (3, 50_000)), ("0.bias", (1,))))


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def job(folder: Path, strategy: str = "fedavg", **parameters: float) -> Averaging:
    """Return the averaging of three updates with weights 1, 2, 3 onto one model."""
    paths = [folder / f"update-{i}" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(pack(LAYOUT, vector(i)))
    (folder / "model-0").write_bytes(pack(LAYOUT, vector(9)))
    return Averaging(
        layout=LAYOUT,
        updates=tuple((path, float(i + 1)) for i, path in enumerate(paths)),
        model=folder / "model-0",
        new_model=folder / "model-1",
        words=AlgorithmWords(strategy, parameters),
        state=None,
        new_state=folder / "state-1",
    )


def read(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[len(LAYOUT.header) :], "<f4")


def test_the_new_model_is_the_old_one_plus_the_renormalised_mean(tmp_path: Path) -> None:
    average(job(tmp_path))
    mean = sum((i + 1) / 6 * vector(i).astype(np.float64) for i in range(3))
    # float32 accumulation of three terms of size about one
    np.testing.assert_allclose(read(tmp_path / "model-1"), vector(9) + mean, atol=1e-6)


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    digest = average(job(tmp_path))
    assert digest == digest_bytes((tmp_path / "model-1").read_bytes())


def test_a_strategy_without_state_writes_no_state_file(tmp_path: Path) -> None:
    average(job(tmp_path))
    assert not (tmp_path / "state-1").exists()


def test_block_by_block_gives_the_bits_of_the_whole_over_rounds_with_state(tmp_path: Path) -> None:
    first = job(tmp_path, "fedadam", eta=0.1)
    average(first)
    second = Averaging(
        LAYOUT,
        first.updates,
        first.new_model,
        tmp_path / "model-2",
        first.words,
        first.new_state,
        tmp_path / "state-2",
    )
    average(second)
    algorithm = make_algorithm(first.words)
    params, state = vector(9), algorithm.init(vector(9))
    for _ in range(2):
        mean = vector(0) * np.float32(1 / 6)
        mean += vector(1) * np.float32(2 / 6)
        mean += vector(2) * np.float32(3 / 6)
        params, state = algorithm.step(params, state, mean, RoundFacts())
    assert read(tmp_path / "model-2").tobytes() == params.tobytes()


def encoded(task: Averaging, encoding: Encoding) -> Averaging:
    """Return the same job with its updates encoded, in place."""
    made = replace(task, encoding=encoding)
    for path, _ in task.updates:
        path.write_bytes(pack(made.update_layout, read(path)))
    return made


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_encoded_updates_give_the_bits_of_the_values_they_stand_for(
    tmp_path: Path, encoding: Encoding
) -> None:
    task = encoded(job(tmp_path), encoding)
    for path, _ in task.updates:
        assert path.stat().st_size < 0.51 * LAYOUT.nbytes
    digest = average(task)
    for i, (path, _) in enumerate(task.updates):
        values = decode(*encode(encoding, vector(i)), np.empty(SIZE, np.float32))
        path.write_bytes(pack(LAYOUT, values))
    assert average(replace(task, encoding="float32", new_model=tmp_path / "again")) == digest


def test_an_update_in_another_encoding_than_the_study_s_is_not_averaged(tmp_path: Path) -> None:
    task = encoded(job(tmp_path), "int8")
    with pytest.raises(IntegrityError, match="file-changed"):
        average(replace(task, encoding="float16"))


def test_an_input_that_changed_since_its_check_is_refused(tmp_path: Path) -> None:
    task = job(tmp_path)
    with (tmp_path / "update-1").open("ab") as file:
        file.write(b"more")
    with pytest.raises(IntegrityError, match="file-changed"):
        average(task)


def test_a_failed_aggregation_leaves_no_half_written_file(tmp_path: Path) -> None:
    task = job(tmp_path)
    (tmp_path / "update-2").unlink()
    with pytest.raises(FileNotFoundError):
        average(task)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model-0", "update-0", "update-1"]


@pytest.fixture
def aggregator() -> Iterator[Aggregator]:
    process = Aggregator.start()
    yield process
    process.stop()


def ask(call: Callable[[Callable[[Outcome], None]], None]) -> Outcome:
    answers: SimpleQueue[Outcome] = SimpleQueue()
    call(answers.put)
    return answers.get(timeout=20)


def test_the_worker_gives_the_bits_of_the_function(tmp_path: Path, aggregator: Aggregator) -> None:
    task = job(tmp_path)
    outcome = ask(lambda done: aggregator.aggregate(task, done))
    assert outcome == Outcome(digest=average(task))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (pack(LAYOUT, vector(1)), ""),
        (pack(replace(LAYOUT, encoding="int8"), vector(1)), "update-wrong-tensors"),
        (pack(LAYOUT, vector(1) * 10), "update-over-norm"),
        (pack(LAYOUT, np.full(SIZE, np.nan, np.float32)), "update-not-finite"),
        (pack(LAYOUT, vector(1))[:-4], "update-malformed"),
        (pack(LAYOUT, vector(1)) + b"1234", "update-too-large"),
    ],
)
def test_the_worker_says_with_a_code_why_an_update_does_not_count(
    tmp_path: Path, aggregator: Aggregator, content: bytes, code: str
) -> None:
    (tmp_path / "update").write_bytes(content)
    outcome = ask(lambda done: aggregator.check(tmp_path / "update", LAYOUT, 500.0, done))
    assert outcome.code == code


def test_the_worker_checks_an_encoded_update_by_what_it_stands_for(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    layout = replace(LAYOUT, encoding="int8")
    (tmp_path / "update").write_bytes(pack(layout, vector(1)))
    outcome = ask(lambda done: aggregator.check(tmp_path / "update", layout, 500.0, done))
    assert outcome == Outcome(norm=pytest.approx(np.linalg.norm(vector(1)), rel=1e-3))
    (tmp_path / "update").write_bytes(pack(LAYOUT, vector(1)))
    outcome = ask(lambda done: aggregator.check(tmp_path / "update", layout, 500.0, done))
    assert outcome.code == "update-too-large"


def test_an_update_with_another_header_is_refused_without_reading_it_whole(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    vast = TensorLayout((("0.weight", (1 << 38,)),))  # 1 TiB
    (tmp_path / "update").touch()
    os.truncate(tmp_path / "update", vast.nbytes)
    outcome = ask(lambda done: aggregator.check(tmp_path / "update", vast, 1.0, done))
    assert outcome.code == "update-malformed"


def test_a_worker_that_was_killed_is_replaced(tmp_path: Path, aggregator: Aggregator) -> None:
    task = job(tmp_path)
    os.kill(aggregator.pid, signal.SIGKILL)
    assert ask(lambda done: aggregator.aggregate(task, done)).code == ""


def test_a_worker_that_hangs_is_killed_and_the_request_done_by_another(tmp_path: Path) -> None:
    limits = iter([0.5])  # the second worker has all the time its imports need
    process = Aggregator.start(limit_s=lambda _: next(limits, 30.0))
    task, hung = job(tmp_path), process.pid
    os.kill(hung, signal.SIGSTOP)
    assert ask(lambda done: process.aggregate(task, done)) == Outcome(digest=average(task))
    assert process.pid != hung
    process.stop()


def test_a_worker_that_does_not_even_read_a_long_request_is_killed_too(tmp_path: Path) -> None:
    limits = iter([0.3])
    process = Aggregator.start(limit_s=lambda _: next(limits, 30.0))
    layout = TensorLayout(tuple((f"{i}.weight", (1,)) for i in range(10_000)))  # more than a pipe
    (tmp_path / "update").write_bytes(pack(layout, np.ones(layout.size, np.float32)))
    hung = process.pid
    os.kill(hung, signal.SIGSTOP)
    found = ask(lambda done: process.check(tmp_path / "update", layout, 500.0, done))
    assert (found.code, found.norm) == ("", pytest.approx(100.0))
    assert process.pid != hung
    process.stop()


def test_a_request_that_hangs_every_worker_is_answered_with_a_code(tmp_path: Path) -> None:
    process = Aggregator.start(limit_s=lambda _: 0.3)
    os.mkfifo(tmp_path / "update")  # opening it waits for a writer that never comes
    outcome = ask(lambda done: process.check(tmp_path / "update", LAYOUT, 500.0, done))
    assert outcome.code == "aggregation-crashed"
    process.stop()


def test_the_patience_with_a_worker_grows_with_what_it_reads_and_writes(tmp_path: Path) -> None:
    sizes: list[int] = []
    process = Aggregator.start(limit_s=lambda nbytes: sizes.append(nbytes) or patience(nbytes))
    (tmp_path / "update").write_bytes(pack(LAYOUT, vector(1)))
    ask(lambda done: process.check(tmp_path / "update", LAYOUT, 500.0, done))
    ask(lambda done: process.aggregate(job(tmp_path), done))
    process.stop()
    assert sizes[0] == LAYOUT.nbytes
    assert sizes[1] >= 5 * LAYOUT.nbytes  # three updates, the old model and the new one
    assert patience(4 << 30) - patience(0) > 600


def test_a_hung_worker_does_not_outlive_a_killed_coordinator(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from larrey_protocol.tensors import TensorLayout
from larrey_server.aggregator import Aggregator
process = Aggregator.start()
show = lambda outcome: print(process.pid, flush=True)
process.check(Path({str(tmp_path)!r}), TensorLayout(()), 1.0, show)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        os.kill(worker, signal.SIGSTOP)
        process.kill()
    stat = Path(f"/proc/{worker}/stat")
    until(lambda: not stat.exists() or ") Z " in stat.read_text())


def test_requests_left_at_the_stop_are_answered(tmp_path: Path) -> None:
    process, answers = Aggregator.start(), SimpleQueue[Outcome]()
    task = job(tmp_path)
    for _ in range(3):
        process.aggregate(task, answers.put)
    process.stop()
    codes = [answers.get(timeout=5).code for _ in range(3)]
    assert codes[-1] == "aggregator-stopped"


def test_the_worker_imports_neither_torch_nor_flower_nor_pydantic() -> None:
    code = "import larrey_server.aggregation, sys; print([m for m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert not [m for m in ("'torch'", "'flwr'", "'pydantic'", "'grpc'") if m in loaded]
