"""Aggregation in CPU seconds of one thread: Larrey, Flower and a plain copy in one run.

The shipped path is the benched path: `larrey_strategies.combining` is what the worker runs over
its files and a simulation over its arrays, `larrey_server.aggregation.average` is the worker's
whole order, and memory is that of the worker's own process. Flower's functions are called as
shipped. Every result is compared before its time counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.server.strategy.aggregate import aggregate_median, aggregate_trimmed_avg
from flwr.serverapp.strategy.multikrum import select_multikrum
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from numpy.typing import NDArray

from bench.harness import RESULTS, Comparison, Figure, finish
from larrey_protocol.tensors import TensorLayout, pack
from larrey_server.aggregation import Averaging, average
from larrey_server.aggregator import Aggregator, Outcome
from larrey_strategies.combining import aggregate
from larrey_strategies.krum import Krum
from larrey_strategies.mean import Mean
from larrey_strategies.median import Median
from larrey_strategies.registry import AlgorithmWords
from larrey_strategies.trimmed_mean import TrimmedMean

Vector = NDArray[np.float32]
Result = TypeVar("Result")
_TIMES = 5
_SITES = 10
_HOSTILE = 2  # f of Krum, and the share that the trimmed mean leaves out at each end: 0.2
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # as the worker has


def main() -> int:
    """Measure, print and write the figures; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without 50 sites; written to runs/")
    quick = parser.parse_args().quick
    if any(os.environ.get(name) != value for name, value in _ONE_THREAD.items()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **_ONE_THREAD})
    large, small = 25_000_000, 5_000_000
    figures = [*_mean(large), *_memory(large), *_robust(small, 10)]
    if not quick:
        figures += _robust(small, 50)
    notes = [
        f"CPU seconds of one thread. The mean is of {_SITES} updates of {large:,} float32 values,",
        f"robust rules are over {small:,}. The copy is numpy's of all updates; it and the mean",
        "write to memory that is there already. Spooled: the worker's whole order, from files in",
        "the page cache to a durable model with its digest. Flower 1.41: aggregate_arrayrecords",
        "and select_multikrum over records as they arrive; median and trimmed mean over arrays,",
        "which is faster than its records; the best of two or three runs. Extra memory is by how",
        "much the worker's own process grows over its idle, in models.",
    ]
    folder = _runs() if quick else RESULTS
    return finish("aggregate", "make bench-aggregate", figures, notes=notes, folder=folder)


def _mean(size: int) -> list[Figure]:
    updates, weights = _updates(_SITES, size), [float(i + 1) for i in range(_SITES)]
    copied, found = np.zeros(size, np.float32), np.zeros(size, np.float32)
    copies, ours = [], []
    for _ in range(_TIMES):
        copies.append(_seconds(lambda: [np.copyto(copied, update) for update in updates])[0])
        ours.append(_seconds(lambda: aggregate(Mean(), updates, weights, out=found))[0])
    copy, mean = statistics.median(copies), statistics.median(ours)
    spooled = _spooled(updates, weights)
    flower = _flower_mean(updates, weights, found)
    return [
        Figure("mean_over_memcpy", mean / copy, "", "<=", 1.3),
        Figure("mean_speedup_over_flower", flower / mean),
        Figure("mean_spooled_over_memcpy", spooled / copy),
        Figure("flower_mean_over_memcpy", flower / copy),
        Figure("mean_seconds", mean, "s", count=f"median of {_TIMES}"),
        Figure("memcpy_seconds", copy, "s", count=f"median of {_TIMES}"),
    ]


def _flower_mean(updates: list[Vector], weights: Sequence[float], expected: Vector) -> float:
    """Return Flower's seconds for the same mean; empties ``updates`` to save memory."""
    records = _records(updates, weights)
    updates.clear()
    runs = [_seconds(lambda: aggregate_arrayrecords(records, "weight")) for _ in range(3)]
    _require_close(runs[-1][1]["model"].numpy(), expected)
    return min(seconds for seconds, _ in runs)


def _records(updates: Sequence[Vector], weights: Sequence[float]) -> list[RecordDict]:
    """Return the updates as Flower's server has them when all have come."""
    return [
        RecordDict(
            {
                "arrays": ArrayRecord({"model": Array(update)}),
                "metrics": MetricRecord({"weight": weight}),
            }
        )
        for update, weight in zip(updates, weights, strict=True)
    ]


def _spooled(updates: Sequence[Vector], weights: Sequence[float]) -> float:
    with tempfile.TemporaryDirectory(dir=_runs()) as name:
        order = _order(Path(name), updates, weights)
        return statistics.median(_seconds(lambda: average(order))[0] for _ in range(3))


def _memory(size: int) -> list[Figure]:
    """Return what the worker's own process grows by, in models, for 4 and for 64 updates."""
    grown = {}
    with tempfile.TemporaryDirectory(dir=_runs()) as name:
        order = _order(Path(name), _updates(1, size), [1.0])
        for sites in (4, 64):  # the same file again and again: its pages are nobody's memory
            worker, answers = Aggregator.start(), SimpleQueue[Outcome]()
            repeated = replace(order, updates=order.updates * sites)
            worker.check(order.model, order.layout, 1e12, answers.put)
            answers.get()
            before = _peak_bytes(worker.pid)
            worker.aggregate(repeated, answers.put)
            if code := answers.get().code:
                raise RuntimeError(code)
            grown[sites] = (_peak_bytes(worker.pid) - before) / (4 * size)
            worker.stop()
    return [
        Figure("extra_memory_model_sizes", max(grown.values()), "", "<=", 1, count="4, 64 sites"),
        Figure("extra_memory_model_sizes_n4", grown[4]),
        Figure("extra_memory_model_sizes_n64", grown[64]),
    ]


def _robust(size: int, sites: int) -> list[Figure]:
    updates, hostile = _updates(sites, size), sites * _HOSTILE // 10
    theirs, share = [([update], 1) for update in updates], _HOSTILE / 10
    ten = sites == 10
    figures = [
        *_against(
            f"median%s_n{sites}",
            lambda: aggregate(Median(), updates, [1.0] * sites),
            lambda: aggregate_median(theirs)[0],
            target=10.0 if ten else 3.0,
        ),
        *_against(
            f"trimmed_mean%s_n{sites}",
            lambda: aggregate(TrimmedMean(share), updates, [1.0] * sites),
            lambda: aggregate_trimmed_avg(theirs, share)[0],
        ),
    ]
    if not ten:  # Flower's records and copies of 50 updates would be 4 GB
        return figures
    records = _records(updates, [1.0] * sites)

    def chosen() -> Vector:
        best = select_multikrum(records, hostile, 1)
        return best[0].array_records["arrays"]["model"].numpy()

    krum = _against(
        f"krum%s_n{sites}",
        lambda: aggregate(Krum(hostile), updates, [1.0] * sites),
        chosen,
        target=3.0,
    )
    return [*figures, *krum]


def _against(
    name: str,
    ours: Callable[[], Vector],
    flower: Callable[[], Vector],
    *,
    target: float | None = None,
) -> list[Figure]:
    """Return the ratio of Flower's seconds to ours for the same result, and ours."""
    mine = [_seconds(ours) for _ in range(_TIMES)]
    theirs = [_seconds(flower) for _ in range(2)]
    _require_close(mine[-1][1], theirs[-1][1])
    spent = statistics.median(seconds for seconds, _ in mine)
    least = min(seconds for seconds, _ in theirs)
    comparison: Comparison = ">=" if target else ""
    return [
        Figure(name % "_speedup_over_flower", least / spent, "", comparison, target),
        Figure(name % "_seconds", spent, "s", count=f"median of {_TIMES}"),
    ]


def _updates(sites: int, size: int) -> list[Vector]:
    """Return normal updates, each a bit wider than the one before: Krum's choice is sure."""
    rng = np.random.default_rng(0)
    updates = []
    for index in range(sites):
        update = rng.standard_normal(size, dtype=np.float32)
        update *= np.float32(1 + index / 20)
        updates.append(update)
    return updates


def _order(folder: Path, updates: Sequence[Vector], weights: Sequence[float]) -> Averaging:
    layout = TensorLayout((("model", updates[0].shape),))
    paths = [folder / f"update-{index}" for index in range(len(updates))]
    for path, update in zip(paths, updates, strict=True):
        path.write_bytes(pack(layout, update))
    (folder / "model-0").write_bytes(pack(layout, np.zeros(layout.size, np.float32)))
    return Averaging(
        layout=layout,
        updates=tuple(zip(paths, weights, strict=True)),
        model=folder / "model-0",
        new_model=folder / "model-1",
        words=AlgorithmWords("fedavg"),
        state=None,
        new_state=folder / "state-1",
    )


def _seconds(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return CPU seconds, of the kernel too, and what came out."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _require_close(found: Vector, expected: Vector) -> None:
    if not np.allclose(found, expected, rtol=0, atol=1e-5):  # sums of 50 float32 about one
        raise RuntimeError("the two compared functions do not compute the same")


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def _runs() -> Path:
    folder = Path("runs")
    folder.mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
