"""When a study looks at the clock again: nothing that falls due while it works is overlooked."""

from __future__ import annotations

from tests.server.study_bench import Bench


def test_a_deadline_that_passes_before_anybody_asks_for_it_is_due_at_once(bench: Bench) -> None:
    bench.launch()
    while bench.run.state.round < 2:  # one round, so that the sites have a pace
        bench.play(steps=1)
    for errand in list(bench.errands.waiting):
        if errand[0] != "delta":
            bench.answer(*errand)
    while bench.run._checking:
        bench.work()
    due = bench.run.wake()
    assert due is not None
    assert bench.now < due < bench.now + 10
    bench.now = due + 0.01
    assert bench.run.wake() == due
    bench.pass_time(0.0)
    assert bench.run.state.status == "closing"
