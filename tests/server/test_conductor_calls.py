"""A study with several calls a round: train counts, metrics are averaged and published."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from larrey_protocol.models import model_layout
from larrey_protocol.signed import Signed
from larrey_server.aggregator import Aggregator
from tests.server.study_bench import Bench, certificate, make_study, oracle

CALLED = ("train", "evaluate", "query")


def applied(bench: Bench) -> list[dict[str, Any]]:
    return [event for event in bench.events if event["event"] == "round-applied"]


def test_a_study_with_more_calls_averages_the_updates_of_train_alone(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    study = make_study(calls=CALLED)
    bench = Bench(tmp_path, study, aggregator)
    bench.launch()
    bench.play()
    paper = certificate(bench)
    assert paper.outcome == "COMPLETE"
    assert bench.model() == oracle(study)
    assert {cell.bytes for cell in paper.matrix} == {model_layout(study).nbytes}
    rows = bench.journal.contributions(study.digest)
    for row in rows:
        receipts = [json.loads(Signed.from_bytes(one).document) for one in row.receipts]
        assert [receipt["phase"] for receipt in receipts] == ["train", "evaluate", "query"]
        assert receipts[0]["update"] == row.cell.update
    assert list(bench.spool.folder.iterdir()) == []
    bench.journal.close()


def test_the_metrics_of_each_call_are_published_as_their_weighted_mean(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    study = make_study(rounds=1, calls=CALLED)
    bench = Bench(tmp_path, study, aggregator)
    bench.code_of["delta query"] = "app-failed"
    bench.launch()
    bench.play()
    expected = {
        "loss": pytest.approx(8 / 6),
        "auc": pytest.approx(0.1),
    }
    (event,) = applied(bench)
    assert event["metrics"] == {"evaluate": expected, "query": expected}
    assert bench.run.status()["metrics"] == event["metrics"]
    assert {c.code for c in certificate(bench).matrix if c.site == "delta"} == {"app-failed"}
    bench.journal.close()


def test_a_kill_in_any_call_changes_neither_model_nor_metrics(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    study = make_study(rounds=1, calls=CALLED)
    ends = []
    for step in range(0, 26, 2):  # 4 answers and 4 checks a call, 1 aggregation
        bench = Bench(tmp_path / str(step), study, aggregator)
        bench.launch()
        bench.play(random.Random(step), steps=step)
        bench.kill_and_restart()
        bench.play(random.Random(step))
        rows = bench.journal.contributions(study.digest)
        assert all(len(row.receipts) == 3 for row in rows)
        ends.append((bench.run.state.outcome, bench.run.state.model, bench.run.state.metrics))
        bench.journal.close()
    assert ends == [ends[0]] * len(ends)
    assert ends[0][0] == "COMPLETE"
