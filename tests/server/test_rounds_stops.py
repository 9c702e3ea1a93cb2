"""Orders in the rules of rounds: pause, halt, resume, close, withdraw; and any mix of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from larrey_server.round_values import (
    Aggregate,
    Aggregated,
    Cancel,
    Cell,
    Commit,
    Event,
    Send,
    SiteStopped,
    SiteUp,
    Ticked,
)
from larrey_server.rounds import begin, next_wake, task_key
from larrey_server.step_record import step_record
from larrey_server.watching import changes
from tests.server.round_play import (
    PLAN,
    SITES,
    answer_all,
    opened,
    order,
    play,
    reborn,
    reply,
)


def test_a_pause_finishes_the_open_round_and_then_waits() -> None:
    state, actions = play(opened(), order("pause"))
    assert (state.status, actions) == ("open", [Commit()])
    state, _ = answer_all(state, SITES)
    state, actions = play(state, Aggregated(6.0, "m1"))
    assert (state.status, state.applied, state.round) == ("paused", 1, 2)
    assert [type(action) for action in actions] == [Commit]
    assert next_wake(state, 7.0) is None


def test_a_paused_study_goes_on_with_its_next_round() -> None:
    state, _ = play(opened(), order("pause"))
    state, _ = answer_all(state, SITES)
    state, _ = play(state, Aggregated(6.0, "m1"))
    state, actions = play(reborn(state), order("resume", 3))
    assert (state.status, state.round, state.attempt, state.model) == ("open", 2, 1, "m1")
    assert actions == [Commit(), *(Send(site) for site in SITES)]
    assert state.stop == state.stop_by == ""


def test_a_pause_taken_back_in_its_round_changes_nothing_else() -> None:
    state, _ = play(opened(), order("pause"), order("resume", 3))
    assert replace(state, order=1) == opened()


def test_a_pause_is_not_lost_in_a_restart_within_the_round() -> None:
    state, _ = answer_all(opened(), ("alpha",))
    state = reborn(play(state, order("pause"))[0])
    assert (state.stop, state.stop_by, state.stop_on) == ("pause", "ada", 1000.0)
    assert (state.pending, state.replies) == (SITES, ())


def test_a_paused_round_below_quorum_spends_its_spare_and_waits() -> None:
    state, _ = play(opened(), order("pause"), Ticked(60.0))
    assert (state.status, state.attempt, state.spares_left) == ("paused", 2, 0)


def test_a_halt_abandons_the_attempt_at_once_and_costs_no_spare() -> None:
    state, _ = answer_all(opened(), ("alpha",))
    key = task_key(state)
    state, actions = play(state, order("halt"))
    assert (state.status, state.applied, state.spares_left) == ("halted", 0, PLAN.spare_rounds)
    assert isinstance(actions[0], Commit)
    assert {cell.site: (cell.outcome, cell.code) for cell in actions[0].cells} == {
        "alpha": ("contributed", "study-halted"),
        "beta": ("halted", "study-halted"),
        "gamma": ("halted", "study-halted"),
    }
    assert actions[1:] == [Cancel("beta", key), Cancel("gamma", key)]


def test_a_halt_during_aggregation_lets_nothing_be_applied() -> None:
    state, _ = answer_all(opened(), SITES)
    state, _ = play(state, order("halt"))
    assert play(state, Aggregated(6.0, "m1")) == (state, [])
    assert (state.applied, state.model) == (0, "m0")


def test_a_halted_study_asks_nobody_takes_nothing_and_survives_a_restart() -> None:
    first = opened()
    state, _ = play(first, order("halt"))
    for here in (state, reborn(state)):
        events: list[Event] = [SiteUp(6.0, "alpha"), reply(first, "beta", 7.0), Ticked(900.0)]
        after, actions = play(here, *events)
        assert (after.status, actions) == ("halted", [])


def test_resuming_after_a_halt_opens_the_round_again_so_that_stored_answers_count() -> None:
    first, _ = answer_all(opened(), ("alpha",))
    state, _ = play(first, order("halt"))
    state, actions = play(state, order("resume", 3))
    assert (state.round, state.attempt, state.model) == (1, 2, "m0")
    assert actions == [Commit(), *(Send(site) for site in SITES)]
    late = reply(first, "beta", 8.0)  # trained for the attempt that was halted
    assert play(state, late)[0].replies == (late.reply,)


def test_a_halt_is_stronger_than_a_pause() -> None:
    state, _ = play(opened(), order("halt"), order("pause", 3))
    assert (state.stop, state.order) == ("halt", 2)
    state, _ = play(opened(), order("pause"))
    state, _ = answer_all(state, SITES)
    state, _ = play(state, Aggregated(6.0, "m1"), order("halt", 3))
    assert (state.status, state.order) == ("halted", 3)


@pytest.mark.parametrize(("applied", "outcome"), [(0, "FAILED"), (1, "PARTIAL")])
def test_a_close_ends_the_study_and_applies_nothing_more(applied: int, outcome: str) -> None:
    state = opened()
    if applied:
        state, _ = answer_all(state, SITES)
        state, _ = play(state, Aggregated(2.0, "m1"))
    state, actions = play(state, order("close"))
    assert (state.status, state.outcome, state.applied) == ("ended", outcome, applied)
    assert state.reason == "closed-by-order"
    assert isinstance(actions[0], Commit)


@pytest.mark.parametrize("verb", ["pause", "halt", "resume", "close"])
def test_orders_after_the_end_change_nothing(verb: str) -> None:
    after, _ = play(opened(), order("close"))
    assert play(after, order(verb, 9)) == (after, [])


@pytest.mark.parametrize("verb", ["pause", "halt", "resume"])
def test_only_a_close_can_stop_what_was_never_launched(verb: str) -> None:
    before = begin(PLAN, "m0")
    assert play(before, order(verb)) == (before, [])
    after, actions = play(before, order("close"))
    assert (after.status, after.outcome, actions) == ("ended", "FAILED", [Commit()])


def test_a_withdrawn_site_is_taken_out_of_the_open_round_and_asked_no_more() -> None:
    state, _ = answer_all(opened(), ("gamma",))
    state, actions = play(state, SiteStopped(2.0, "gamma", "site-withdrawn", 2))
    assert actions == [Commit()]
    state, actions = answer_all(state, ("alpha", "beta"))
    assert [site for site, _ in actions[-1].updates] == ["alpha", "beta"]  # type: ignore[union-attr]
    assert state.cells[2] == Cell("gamma", 1, 1, "refused", "site-withdrawn")
    state, actions = play(state, Aggregated(3.0, "m1"))
    assert actions[1:] == [Send("alpha"), Send("beta")]


def test_a_withdrawn_site_that_still_works_has_its_request_taken_back() -> None:
    state = opened()
    _, actions = play(state, SiteStopped(2.0, "gamma", "approval-revoked"))
    assert actions == [Commit(), Cancel("gamma", task_key(state))]


def test_the_last_site_that_was_waited_for_closes_the_round_when_it_is_withdrawn() -> None:
    state, _ = answer_all(opened(), ("alpha", "beta"))
    key = task_key(state)
    state, actions = play(state, SiteStopped(2.0, "gamma", "site-withdrawn", 2))
    assert state.status == "closing"
    assert [type(action) for action in actions] == [Commit, Cancel, Aggregate]
    assert actions[1] == Cancel("gamma", key)


def test_a_study_whose_site_was_withdrawn_ends_partial() -> None:
    state, _ = play(opened(), SiteStopped(1.0, "gamma", "site-withdrawn", 2))
    for model in ("m1", "m2"):
        state, _ = answer_all(state, ("alpha", "beta"))
        state, _ = play(state, Aggregated(2.0, model))
    assert (state.outcome, state.reason) == ("PARTIAL", "sites-missing")


def test_too_few_sites_pause_a_halted_study_when_it_is_resumed() -> None:
    state, _ = play(opened(), order("halt"))
    for number, site in enumerate(("beta", "gamma"), start=3):
        state, _ = play(state, SiteStopped(6.0, site, "site-withdrawn", number))
    assert state.status == "halted"
    state, _ = play(state, order("resume", 5))
    assert (state.status, state.stop, state.stop_code) == ("paused", "pause", "too-few-sites")


@pytest.mark.parametrize(("verb", "action"), [("pause", "study-paused"), ("halt", "study-halted")])
def test_trail_and_watchers_hear_who_stopped_what(verb: str, action: str) -> None:
    state, stopped = opened(), play(opened(), order(verb))[0]
    assert step_record(state, stopped, 1.0).action == action
    facts = changes(state, stopped, ())
    assert {"event": f"{verb}-ordered", "by": "ada", "code": ""} in facts
    resumed, _ = play(stopped, order("resume", 3))
    assert step_record(stopped, resumed, 1.0).action == "study-resumed"


def test_watchers_hear_that_a_site_was_withdrawn_and_that_the_round_opens_again() -> None:
    state = opened()
    gone, _ = play(state, SiteStopped(1.0, "gamma", "site-withdrawn", 2))
    wanted = {"event": "site-stopped", "site": "gamma", "code": "site-withdrawn"}
    assert wanted in changes(state, gone, ())
    halted, _ = play(gone, order("halt", 3))
    resumed, _ = play(halted, order("resume", 4))
    assert {"event": "round-opened", "round": 1, "attempt": 2} in changes(halted, resumed, ())
