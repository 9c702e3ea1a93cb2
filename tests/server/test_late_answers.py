"""Answers that come too late: on record, never applied, never fatal; and what answers teach."""

from __future__ import annotations

from larrey_protocol.signed import Contribution
from larrey_server.round_values import Ordered, Task
from larrey_server.study_run import Arrived
from tests.server.study_bench import (
    SITES,
    Bench,
    certificate,
    honest_update,
    make_receipt,
    oracle,
)


def without(bench: Bench, site: str) -> tuple[str, Task]:
    """Play the open round to its deadline while one site works, and return what it was asked."""
    slow = next(errand for errand in bench.errands.waiting if errand[0] == site)
    bench.errands.waiting.remove(slow)
    bench.play()
    bench.errands.waiting.append(slow)
    bench.pass_time(60.0)
    bench.work()
    return slow


def cells_of(bench: Bench, site: str) -> list[Contribution]:
    return [cell for cell in certificate(bench).matrix if cell.site == site]


def test_a_late_update_is_on_record_with_its_round_and_never_applied(bench: Bench) -> None:
    bench.launch()
    slow = without(bench, "delta")
    before = bench.run.state
    bench.answer(*slow)
    assert bench.run.state == before
    late = [event for event in bench.events if event["event"] == "answer-late"]
    assert [(event["site"], event["round"]) for event in late] == [("delta", 1)]
    record = bench.audit()[-1]
    assert (record.action, record.subject, record.round) == ("answer-late", "delta", 1)
    bench.play()
    outcomes = [cell.outcome for cell in cells_of(bench, "delta")]
    assert outcomes == ["late", "contributed", "contributed"]
    assert list(bench.spool.folder.iterdir()) == []


def test_a_late_update_that_comes_again_and_again_is_told_once(bench: Bench) -> None:
    bench.launch()
    slow = without(bench, "delta")
    for _ in range(3):
        bench.answer(*slow)
    assert [record.action for record in bench.audit()].count("answer-late") == 1


def test_an_update_that_counted_and_comes_again_is_not_late(bench: Bench) -> None:
    bench.launch()
    again = bench.errands.waiting[0]
    without(bench, "delta")
    bench.answer(*again)
    assert bench.events[-1]["event"] == "answer-ignored"


def test_a_late_answer_of_an_excluded_site_counts_for_nothing(bench: Bench) -> None:
    bench.launch()
    slow = next(errand for errand in bench.errands.waiting if errand[0] == "delta")
    bench.run.handle(Ordered(bench.now, "exclude", 2, "ada", subject="delta", reason="broken"))
    assert bench.errands.cancelled == ["delta"]
    bench.answer(*slow)
    bench.play()
    assert {cell.outcome for cell in cells_of(bench, "delta")} == {"excluded"}
    assert bench.model() != oracle(bench.study)


def test_an_answer_teaches_how_long_a_site_works_and_how_long_its_bytes_travel(
    bench: Bench,
) -> None:
    bench.launch()
    for seconds, site in enumerate(SITES, start=7):
        bench.now = 1000.0 + seconds
        _, task = bench.errands.waiting.pop(0)
        update = honest_update(bench.study, site, task.model)
        receipt = make_receipt(bench.study, site, task.key, update, bench.key)
        digest = bench.spool.add_bytes(update)
        answer = Arrived(bench.now, site, task.key, digest, receipt, "", 2.0)
        bench.run.handle(answer)
        bench.work()
    paces = {site: bench.run.state.pace[site]["train"] for site in SITES}
    assert paces == {site: ((5.0 + n, 2.0),) for n, site in enumerate(SITES)}


def test_a_transfer_is_never_longer_than_the_answer_took(bench: Bench) -> None:
    bench.launch()
    site, task = bench.errands.waiting.pop(0)
    update = honest_update(bench.study, site, task.model)
    receipt = make_receipt(bench.study, site, task.key, update, bench.key)
    digest = bench.spool.add_bytes(update)
    bench.now += 4.0
    bench.run.handle(Arrived(bench.now, site, task.key, digest, receipt, "", 9e9))
    bench.work()
    assert bench.run.state.pace[site]["train"] == ((0.0, 4.0),)
