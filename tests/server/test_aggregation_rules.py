"""The aggregation worker with every aggregator, and the vectors that travel with a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.encodings import Encoding, decode, encode
from larrey_protocol.errors import UsageError
from larrey_protocol.tensors import TensorLayout, pack, parse_header
from larrey_server.aggregation import Averaging, average, from_json, to_json
from larrey_server.aggregator import Aggregator, Outcome
from larrey_strategies.combining import aggregate
from larrey_strategies.contract import RoundFacts
from larrey_strategies.registry import AlgorithmWords, make_algorithm

SIZE = 150_001  # more than one stretch, and no multiple of one
LAYOUT = TensorLayout((("0.weight", (3, 50_000)), ("0.bias", (1,))))
SITES = 7
WEIGHTS = [float(i + 1) for i in range(SITES)]
FACTS = RoundFacts(local_steps=5, learning_rate=0.1, momentum=0.5, share=0.75)
RULES: dict[str, dict[str, float]] = {
    "fedavg": {},
    "median": {},
    "trimmed-mean": {"beta": 0.2},
    "krum": {"f": 2},
    "multi-krum": {"f": 1, "m": 3},
    "geometric-median": {},
    "centered-clipping": {"tau": 100},
    "norm-bounding": {"bound": 300},
}


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def job(folder: Path, words: AlgorithmWords, encoding: Encoding = "float32") -> Averaging:
    updates = [folder / f"update-{i}" for i in range(SITES)]
    for i, path in enumerate(updates):
        path.write_bytes(pack(replace(LAYOUT, encoding=encoding), vector(i)))
    (folder / "model-0").write_bytes(pack(LAYOUT, vector(99)))
    return Averaging(
        layout=LAYOUT,
        updates=tuple(zip(updates, WEIGHTS, strict=True)),
        model=folder / "model-0",
        new_model=folder / "model-1",
        words=words,
        state=None,
        new_state=folder / "state-1",
        encoding=encoding,
        facts=FACTS,
        new_request=folder / "request-1",
    )


def read(path: Path, layout: TensorLayout = LAYOUT) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[len(layout.header) :], "<f4")


def made(folder: Path) -> list[str]:
    """Return the files beside the updates."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("update-"))


@pytest.fixture
def aggregator() -> Iterator[Aggregator]:
    process = Aggregator.start()
    yield process
    process.stop()


def ask(aggregator: Aggregator, task: Averaging) -> Outcome:
    answers: SimpleQueue[Outcome] = SimpleQueue()
    aggregator.aggregate(task, answers.put)
    return answers.get(timeout=20)


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", RULES)
def test_files_give_the_bits_of_arrays_in_memory(
    tmp_path: Path, name: str, encoding: Encoding
) -> None:
    task = job(tmp_path, AlgorithmWords(name, RULES[name]), encoding)
    average(task)
    updates = [vector(i) for i in range(SITES)]
    if encoding != "float32":
        updates = [decode(*encode(encoding, u), np.empty(SIZE, np.float32)) for u in updates]
    expected = vector(99) + aggregate(make_algorithm(task.words).aggregator, updates, WEIGHTS)
    assert read(task.new_model).tobytes() == expected.tobytes()


def test_another_process_makes_the_same_bits_of_a_gram_matrix(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    task = job(tmp_path, AlgorithmWords("geometric-median"))
    assert ask(aggregator, task) == Outcome(digest=average(task))


def test_a_rule_in_the_place_of_a_preset_s_meets_its_optimizer(tmp_path: Path) -> None:
    words = AlgorithmWords(
        "fedavgm", {"eta": 1.0}, aggregator="krum", aggregator_parameters={"f": 2}
    )
    task = job(tmp_path, words)
    average(task)
    algorithm = make_algorithm(words)
    chosen = aggregate(algorithm.aggregator, [vector(i) for i in range(SITES)], WEIGHTS)
    expected, _ = algorithm.step(vector(99), algorithm.init(vector(99)), chosen, FACTS)
    assert read(task.new_model).tobytes() == expected.tobytes()


def test_too_few_updates_for_a_rule_make_no_model(tmp_path: Path, aggregator: Aggregator) -> None:
    task = job(tmp_path, AlgorithmWords("krum", {"f": 3}))
    with pytest.raises(UsageError, match="needs 9 updates, found 7"):
        average(task)
    assert ask(aggregator, task) == Outcome(code="too-few-updates")
    assert made(tmp_path) == ["model-0"]


def test_what_travels_with_the_model_follows_it_in_the_file_that_sites_get(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    task = job(tmp_path, AlgorithmWords("scaffold"))
    outcome = ask(aggregator, task)
    algorithm, updates = make_algorithm(task.words), [vector(i) for i in range(SITES)]
    mean = aggregate(algorithm.aggregator, updates, WEIGHTS)
    params, state = algorithm.step(vector(99), algorithm.init(vector(99)), mean, FACTS)
    content = (tmp_path / "request-1").read_bytes()
    layout = parse_header(content, file_bytes=len(content))
    assert layout.entries == (*LAYOUT.entries, ("shared.c", (SIZE,)))
    assert content == pack(layout, np.concatenate([params, state["c"]]))
    assert outcome.digest == digest_bytes(pack(LAYOUT, params))
    assert outcome.request == digest_bytes(content)
    assert outcome.memory == digest_bytes((tmp_path / "state-1").read_bytes())


def test_state_that_stays_at_the_coordinator_makes_no_file_for_sites(tmp_path: Path) -> None:
    average(job(tmp_path, AlgorithmWords("fedadam", {"eta": 0.1})))
    assert (tmp_path / "state-1").exists()
    assert not (tmp_path / "request-1").exists()


def test_a_failed_aggregation_with_state_leaves_no_half_written_file(tmp_path: Path) -> None:
    task = job(tmp_path, AlgorithmWords("scaffold"))
    with pytest.raises(FileNotFoundError):
        average(replace(task, new_state=tmp_path / "missing" / "state-1"))
    assert made(tmp_path) == ["model-0"]


def test_an_order_says_the_same_after_its_way_to_the_worker(tmp_path: Path) -> None:
    words = AlgorithmWords(
        "fedprox", {"mu": 0.5}, aggregator="krum", aggregator_parameters={"f": 1}
    )
    task = job(tmp_path, words)
    assert from_json(json.loads(json.dumps(to_json(task)))) == task
    plain = replace(task, new_request=None, state=tmp_path / "state-0")
    assert from_json(json.loads(json.dumps(to_json(plain)))) == plain
