"""A study's run from launch to certificate, with kills, lies and shuffled answers."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

import pytest

from larrey_protocol.errors import IntegrityError
from larrey_server.round_values import Ordered, SiteDown, SiteUp
from tests.server.study_bench import (
    SITES,
    Bench,
    certificate,
    oracle,
)


def test_a_study_ends_complete_with_the_model_of_its_strategy(bench: Bench) -> None:
    bench.launch()
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"
    assert bench.model() == oracle(bench.study)


@pytest.mark.parametrize("seed", range(4))
def test_the_model_has_the_same_bits_whatever_the_order_of_arrival(
    tmp_path: Path, bench: Bench, seed: int
) -> None:
    bench.launch()
    bench.play()
    other = Bench(tmp_path / "shuffled", bench.study, bench.aggregator)
    other.launch()
    other.play(random.Random(seed))
    assert other.run.state.model == bench.run.state.model
    other.journal.close()


def test_the_model_has_the_same_bits_after_a_kill_between_any_two_messages(
    tmp_path: Path, bench: Bench
) -> None:
    bench.launch()
    bench.play()
    for step in range(28):  # 3 rounds of 4 answers, 4 checks, 1 aggregation
        other = Bench(tmp_path / str(step), bench.study, bench.aggregator)
        other.launch()
        other.play(random.Random(step), steps=step)
        other.kill_and_restart()
        other.play(random.Random(step))
        assert other.run.state.outcome == "COMPLETE"
        assert other.run.state.model == bench.run.state.model, step
        other.journal.close()


def test_one_durable_commit_a_round(bench: Bench) -> None:
    bench.launch()
    bench.play()
    actions = [record.action for record in bench.audit()]
    assert actions == [
        "study-proposed",
        "study-started",
        "round-applied",
        "round-applied",
        "study-ended",
    ]
    bench.journal.verify()


def test_the_certificate_names_every_site_and_round_and_the_chain_s_end(bench: Bench) -> None:
    bench.launch()
    bench.play()
    paper = certificate(bench)
    assert len(paper.matrix) == 12
    assert {cell.outcome for cell in paper.matrix} == {"contributed"}
    assert (paper.model, paper.audit_head) == (bench.run.state.model, bench.journal.head())


def test_a_killed_site_does_not_stop_the_others_and_makes_the_study_partial(bench: Bench) -> None:
    bench.launch()
    bench.errands.waiting = [e for e in bench.errands.waiting if e[0] != "gamma"]
    bench.run.handle(SiteDown(bench.now, "gamma"))
    bench.play()
    assert bench.run.state.round == 1
    bench.pass_time(2.0)
    bench.play()
    paper = certificate(bench)
    assert (paper.outcome, paper.reason) == ("PARTIAL", "sites-missing")
    assert {c.outcome for c in paper.matrix if c.site == "gamma"} == {"absent"}


def test_a_site_that_comes_back_takes_part_again(bench: Bench) -> None:
    bench.launch()
    bench.run.handle(SiteDown(bench.now, "gamma"))
    bench.errands.waiting = [e for e in bench.errands.waiting if e[0] != "gamma"]
    bench.run.handle(SiteUp(bench.now, "gamma"))
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"


def test_below_quorum_the_round_is_repeated_and_stored_answers_count(bench: Bench) -> None:
    bench.launch()
    slow = [bench.errands.waiting.pop() for _ in range(3)]
    bench.play()
    bench.errands.waiting += slow
    bench.pass_time(60.0)
    assert (bench.run.state.attempt, bench.run.state.applied) == (2, 0)
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"


def test_a_study_gathers_until_quorum_is_there_and_goes_on_by_itself(bench: Bench) -> None:
    bench.sites_up = ["alpha"]
    bench.launch()
    bench.pass_time(100 * 3600.0)
    status = bench.run.status()
    assert (status["state"], status["attempt"], status["spares_left"]) == ("gathering", 1, 1)
    assert [(one["site"], one["why"]) for one in status["missing"]] == [
        (site, "away") for site in ("beta", "gamma", "delta")
    ]
    bench.sites_up = list(SITES)
    bench.connect()
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"


def test_a_slow_site_is_asked_again_when_its_round_is_repeated(bench: Bench) -> None:
    bench.sites_up = ["alpha", "beta"]
    bench.launch()
    bench.pass_time(60.0)  # both are connected and have not answered
    asked = [(site, task.attempt) for site, task in bench.errands.waiting]
    assert asked == [("alpha", 2), ("beta", 2)]


def test_a_request_nobody_waits_for_is_taken_back(bench: Bench) -> None:
    bench.launch()
    slow = bench.errands.waiting.pop()
    bench.play()
    bench.errands.waiting.append(slow)
    bench.pass_time(60.0)
    assert bench.errands.cancelled == [slow[0]]


def test_a_step_that_is_not_durable_is_shown_to_nobody(bench: Bench) -> None:
    bench.launch()
    bench.play(steps=8)
    before, told = bench.run.status(), len(bench.events)
    bench.journal.close()
    with pytest.raises(sqlite3.ProgrammingError):
        bench.work()
    assert bench.run.status() == before
    assert len(bench.events) == told
    bench.start()


def test_a_round_that_the_coordinator_cannot_aggregate_stays_open(bench: Bench) -> None:
    bench.launch()
    bench.play(steps=7)
    next((bench.folder / "studies").rglob("round-0000.safetensors")).rename(bench.folder / "gone")
    bench.work()  # the last check closes the round
    with pytest.raises(IntegrityError, match="aggregation-failed"):
        bench.work()
    back = next((bench.folder / "studies").iterdir()) / "round-0000.safetensors"
    (bench.folder / "gone").rename(back)
    bench.kill_and_restart()
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"


def test_without_quorum_and_spares_the_study_pauses_and_a_retry_completes_it(
    bench: Bench,
) -> None:
    bench.launch()
    for _ in range(2):
        bench.pass_time(60.0)
    status = bench.run.status()
    assert (status["state"], status["stop_code"]) == ("paused", "below-quorum")
    assert status["next_step"] == "larrey study retry sketch"
    bench.run.handle(Ordered(bench.now, "retry", 2, "ada"))
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"
    actions = [record.action for record in bench.audit()][2:5]
    assert actions == ["round-repeated", "study-paused", "study-resumed"]


def test_a_study_closed_below_quorum_failed_and_certifies_it(bench: Bench) -> None:
    bench.launch()
    bench.answer(*bench.errands.waiting.pop(0))
    bench.work()
    for _ in range(2):
        bench.pass_time(60.0)
    bench.run.handle(Ordered(bench.now, "close", 2))
    paper = certificate(bench)
    assert (paper.outcome, paper.reason, paper.rounds_applied) == ("FAILED", "closed-by-order", 0)
    assert paper.model == ""
    assert {c.outcome for c in paper.matrix} == {"late"}


def test_an_invited_site_that_did_not_join_is_named(bench: Bench) -> None:
    bench.launch(("alpha", "beta", "gamma"))
    bench.play()
    paper = certificate(bench)
    assert paper.outcome == "PARTIAL"
    assert {c.code for c in paper.matrix if c.site == "delta"} == {"not-joined"}


def test_a_site_that_declines_the_study_is_asked_once(bench: Bench) -> None:
    bench.code_of["delta"] = "budget-exhausted"
    bench.launch()
    bench.play()
    paper = certificate(bench)
    assert {c.code for c in paper.matrix if c.site == "delta"} == {"budget-exhausted"}
    assert "delta" not in [site for site, _ in bench.errands.waiting]


def test_every_event_is_json_and_carries_the_status(bench: Bench) -> None:
    bench.launch()
    bench.play()
    events = json.loads(json.dumps(bench.events))
    kinds = [event["event"] for event in events]
    assert kinds[:2] == ["launched", "round-gathering"]
    assert kinds.index("round-opened") < kinds.index("site-answered")
    assert kinds[-1] == "study-ended"
    assert kinds.count("round-applied") == 3
    assert all(event["status"]["rounds"] == 3 for event in events)
