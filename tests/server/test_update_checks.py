"""Updates that the coordinator could not check: no site's fault, and no study's end."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from larrey_protocol.errors import IntegrityError
from larrey_server.aggregator import Outcome
from larrey_server.standstill import Standstill
from larrey_server.study_messages import Checked
from tests.server.study_bench import Bench, certificate


def test_an_update_is_checked_again_when_the_worker_died_and_its_site_not_blamed(
    bench: Bench,
) -> None:
    bench.launch()
    bench.answer(*bench.errands.waiting.pop(0))
    sound = bench.posted.get(timeout=20)
    assert isinstance(sound, Checked)
    with pytest.raises(IntegrityError, match="aggregation-crashed"):
        bench.run.handle(replace(sound, outcome=Outcome("aggregation-crashed")))
    assert bench.run.status()["sites"][0]["state"] == "checking"
    assert bench.run.wake() is None  # nobody is late meanwhile
    bench.run.go_on()
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"


def test_an_update_that_no_worker_survives_does_not_stop_the_study(bench: Bench) -> None:
    bench.launch()
    bench.answer(*bench.errands.waiting.pop(0))
    trials = 0
    while bench.run._checking:
        trials += 1
        checked = bench.posted.get(timeout=20)
        assert isinstance(checked, Checked)
        with suppress(IntegrityError):
            bench.run.handle(replace(checked, outcome=Outcome("aggregation-crashed")))
        bench.run.go_on()
    assert trials == 8
    (reply,) = bench.run.state.replies
    assert (reply.site, reply.code) == ("alpha", "update-unchecked")
    bench.play()
    assert certificate(bench).outcome == "PARTIAL"


def test_an_update_that_is_gone_when_it_is_checked_again_is_missing(bench: Bench) -> None:
    bench.launch()
    site, task = bench.errands.waiting.pop(0)
    bench.answer(site, task)
    checked = bench.posted.get(timeout=20)
    assert isinstance(checked, Checked)
    bench.spool.path(checked.arrived.update).unlink()
    with pytest.raises(IntegrityError, match="aggregation-failed"):
        bench.run.handle(replace(checked, outcome=Outcome("aggregation-failed")))
    bench.run.go_on()
    bench.work()
    assert bench.run.state.replies[0].code == "update-missing"


def test_a_study_that_fails_again_at_once_waits_longer_each_time_until_it_was_calm() -> None:
    now = 0.0
    stand, pauses = Standstill(lambda: now), []
    for _ in range(7):
        stand.begin("aggregation-crashed")
        pauses.append(stand.left())
        now += stand.left()
        assert stand.end()
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    now += 60.0
    stand.begin("aggregation-crashed")
    assert stand.left() == 1.0
