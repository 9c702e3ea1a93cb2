"""When an attempt opens: quorum, required sites, training windows, sites that come late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from larrey_server.round_opening import Missing, missing
from larrey_server.round_values import (
    Aggregated,
    Cancel,
    Cell,
    Commit,
    Plan,
    Resumed,
    Send,
    SiteDown,
    SiteJoined,
    SiteStopped,
    SiteUp,
    SiteWindow,
    State,
    Ticked,
)
from larrey_server.rounds import deadline, expects, next_wake, task_key
from tests.server.round_play import (
    PLAN,
    SITES,
    answer_all,
    launched,
    opened,
    order,
    play,
    reborn,
    reply,
)

NEEDY = replace(PLAN, required=("gamma",))


def outside(*sites: str, until: float, plan: Plan = PLAN) -> State:
    """Return a launched study whose sites are all up and some wait for their windows."""
    windows = [SiteWindow(0.0, site, until) for site in sites]
    return play(launched(plan), *windows, *(SiteUp(0.0, site) for site in SITES))[0]


def test_a_launched_study_sends_nothing_until_quorum_is_there() -> None:
    state, actions = play(launched(), SiteUp(1.0, "beta"), Ticked(9e6))
    assert (state.status, actions, state.spares_left) == ("gathering", [], PLAN.spare_rounds)
    state, actions = play(state, SiteUp(9e6, "gamma"))
    assert (state.status, actions) == ("open", [Send("beta"), Send("gamma")])
    assert deadline(state) == 9e6 + 60.0


def test_what_a_gathering_study_sends_is_durable_since_it_gathers() -> None:
    state = launched()
    assert play(state, SiteUp(0.0, "alpha"), SiteUp(0.0, "beta"))[1] == [
        Send("alpha"),
        Send("beta"),
    ]
    assert (state.round, state.attempt, state.model) == (1, 1, "m0")


def test_nothing_opens_without_a_required_site() -> None:
    state = opened(NEEDY, up=("alpha", "beta"))
    assert state.status == "gathering"
    assert missing(state, 0.0) == (Missing("gamma", "away"),)
    assert play(state, SiteUp(1.0, "gamma"))[0].status == "open"


def test_nothing_is_applied_without_a_required_site() -> None:
    state, actions = answer_all(opened(NEEDY), ("alpha", "beta"))
    assert state.status == "open"
    state, actions = play(state, Ticked(60.0))
    assert (state.attempt, state.spares_left) == (2, 0)
    assert isinstance(actions[0], Commit)
    assert [cell.outcome for cell in actions[0].cells] == ["contributed", "contributed", "late"]


def test_a_required_site_that_stopped_for_good_pauses_the_study() -> None:
    state, _ = play(opened(NEEDY), SiteStopped(1.0, "gamma", "approval-revoked"))
    state, _ = answer_all(state, ("alpha", "beta"))
    assert (state.status, state.stop_code) == ("paused", "too-few-sites")
    assert state.spares_left == PLAN.spare_rounds


def test_a_gathering_study_pauses_when_too_few_sites_are_left_for_good() -> None:
    state, _ = play(launched(), SiteStopped(1.0, "alpha", "approval-revoked"))
    assert state.status == "gathering"
    state, actions = play(state, SiteStopped(1.0, "beta", "approval-revoked"))
    assert (state.status, state.stop_code, actions) == ("paused", "too-few-sites", [Commit()])


@pytest.mark.parametrize("code", ["site-withdrawn", "approval-revoked"])
def test_a_round_that_too_many_left_for_good_waits_for_nobody_and_pauses(code: str) -> None:
    state, _ = play(opened(), SiteStopped(1.0, "beta", code))
    assert state.status == "open"
    state, actions = play(state, SiteStopped(2.0, "gamma", code))
    assert (state.status, state.stop_code) == ("paused", "too-few-sites")
    assert (state.attempt, state.spares_left) == (2, PLAN.spare_rounds)
    assert isinstance(actions[0], Commit)
    assert actions[0].cells[0] == Cell("alpha", 1, 1, "halted", "round-not-applied")
    assert actions[1:] == [Cancel(site, task_key(opened())) for site in ("gamma", "alpha")]


def test_a_required_site_that_declines_the_study_as_such_ends_the_round_at_once() -> None:
    state = opened(NEEDY)
    state, _ = play(state, reply(state, "gamma", code="budget-exhausted"))
    assert (state.status, state.stop_code) == ("paused", "too-few-sites")


def test_a_refusal_that_may_pass_does_not_end_a_round_before_the_others_answered() -> None:
    state = opened(replace(PLAN, quorum=3))
    state, _ = play(state, reply(state, "gamma", code="trainer-failed"))
    assert (state.status, state.attempt) == ("open", 1)


def test_a_site_whose_clock_is_behind_is_asked_again_and_costs_no_spare_attempt() -> None:
    state = outside("beta", "gamma", until=500.0, plan=replace(PLAN, deadline_s=600.0))
    state, _ = play(state, Ticked(500.0))
    for _ in range(3):
        at = state.asked["gamma"] + 1.0
        for site in ("beta", "gamma"):
            state, actions = play(state, reply(state, site, at, code="outside-window"))
            assert actions == []
        state, actions = play(state, Ticked(at + 60.0))
        assert actions == [Send("beta"), Send("gamma")]
    state, _ = answer_all(state, SITES, at=700.0)
    assert (state.status, state.attempt, state.spares_left) == ("closing", 1, PLAN.spare_rounds)


def test_a_site_that_trained_is_asked_for_the_later_phases_although_its_window_closed() -> None:
    state = opened(replace(PLAN, phases=("train", "evaluate")))
    state, _ = play(state, SiteWindow(1.0, "gamma", 9e4), SiteWindow(1.0, "beta", 9e4))
    state, actions = answer_all(state, SITES, at=2.0)
    assert (state.phase, actions[1:]) == (1, [Send(site) for site in SITES])
    state, _ = answer_all(state, SITES, at=3.0)
    assert state.status == "closing"


def test_who_declines_a_later_phase_for_the_hour_is_not_asked_for_it_again() -> None:
    state, _ = answer_all(opened(replace(PLAN, phases=("train", "evaluate"))), SITES)
    state, actions = play(state, reply(state, "gamma", 2.0, code="outside-window"))
    assert (actions, "gamma" in state.pending) == ([], False)


def test_a_study_that_too_many_left_while_it_aggregated_pauses_when_it_starts_again() -> None:
    state, _ = answer_all(opened(), SITES)
    state, _ = play(state, *(SiteStopped(1.0, s, "site-withdrawn") for s in ("beta", "gamma")))
    assert state.status == "closing"
    state, actions = play(state, Resumed(5.0))
    assert (state.status, state.stop_code, actions) == ("paused", "too-few-sites", [Commit()])


def test_a_quorum_that_goes_between_two_rounds_is_waited_for() -> None:
    state, _ = answer_all(opened(), SITES)
    state, _ = play(state, SiteDown(1.5, "alpha"), SiteDown(1.5, "beta"))
    state, actions = play(state, Aggregated(2.0, "m1"))
    assert (state.status, state.round, [type(a) for a in actions]) == ("gathering", 2, [Commit])
    state, actions = play(state, SiteUp(9e4, "alpha"))
    assert actions == [Send("alpha"), Send("gamma")]


def test_a_study_gathers_again_after_a_restart_and_spends_nothing() -> None:
    state = reborn(opened(), up=("alpha",))
    assert (state.status, state.attempt, state.spares_left) == ("gathering", 1, PLAN.spare_rounds)


@pytest.mark.parametrize("verb", ["pause", "halt"])
def test_a_gathering_study_can_be_stopped_and_resumed(verb: str) -> None:
    state, actions = play(launched(), order(verb))
    assert (state.status, actions) == ("paused" if verb == "pause" else "halted", [Commit()])
    state, _ = play(state, order("resume", 3))
    assert (state.status, state.attempt, state.stop) == ("gathering", 1, "")


def test_a_round_opens_when_enough_windows_are_open_and_wakes_for_that() -> None:
    state = outside("beta", "gamma", until=500.0)
    assert (state.status, next_wake(state, 1.0)) == ("gathering", 500.0)
    wanted = tuple(Missing(site, "outside-window", 500.0) for site in ("beta", "gamma"))
    assert missing(state, 1.0) == wanted
    assert play(state, Ticked(499.0))[1] == []
    state, actions = play(state, Ticked(500.0))
    assert actions == [Send(site) for site in SITES]


def test_a_site_whose_window_opens_within_the_round_is_asked_then_and_waited_for() -> None:
    state, _ = answer_all(outside("gamma", until=30.0), ("alpha", "beta"))
    assert (state.status, next_wake(state, 1.0)) == ("open", 30.0)
    state, actions = play(state, Ticked(30.0))
    assert actions == [Send("gamma")]
    assert state.asked["gamma"] == 30.0
    assert play(state, reply(state, "gamma", 40.0))[0].status == "closing"


def test_a_site_may_say_earlier_that_its_window_is_open() -> None:
    _, actions = play(outside("gamma", until=30.0), SiteWindow(5.0, "gamma", 0.0))
    assert actions == [Send("gamma")]


def test_a_round_does_not_wait_for_a_window_that_opens_after_its_deadline() -> None:
    state, actions = answer_all(outside("gamma", until=61.0), ("alpha", "beta"))
    assert state.status == "closing"
    assert state.cells[2] == Cell("gamma", 1, 1, "waiting", "outside-window")
    assert not any(getattr(action, "site", "") == "gamma" for action in actions)


def test_a_site_that_has_begun_before_its_window_closed_is_waited_for() -> None:
    state, _ = play(opened(), SiteWindow(5.0, "gamma", 500.0))
    state, _ = answer_all(state, ("alpha", "beta"))
    assert state.status == "open"
    assert play(state, reply(state, "gamma", 50.0))[0].status == "closing"


def test_a_site_that_declines_at_the_wrong_hour_is_asked_again_when_it_opens() -> None:
    state, _ = play(opened(), SiteWindow(5.0, "gamma", 30.0))
    state, actions = play(state, reply(state, "gamma", 6.0, code="outside-window"))
    assert (actions, "gamma" in state.pending) == ([], True)
    assert play(state, Ticked(30.0))[1] == [Send("gamma")]


def test_a_site_that_declines_at_the_wrong_hour_and_names_none_waited() -> None:
    state, _ = play(opened(), reply(opened(), "gamma", code="outside-window"))
    state, _ = answer_all(state, ("alpha", "beta"))
    assert (state.status, state.cells[2].outcome) == ("closing", "waiting")


def test_windows_are_of_one_clock_and_forgotten_in_a_restart() -> None:
    state, _ = play(outside("beta", "gamma", until=9e9), Resumed(5.0))
    state, _ = play(state, SiteUp(6.0, "alpha"), SiteUp(6.0, "beta"))
    assert state.status == "open"


def test_a_site_that_approves_late_joins_at_the_next_opening_in_roster_order() -> None:
    state, _ = play(launched(sites=("alpha", "gamma")), SiteUp(0.0, "alpha"), SiteUp(0.0, "gamma"))
    state, actions = play(state, SiteJoined(1.0, "beta"), SiteUp(1.0, "beta"))
    assert (state.joined, state.pending, actions) == (SITES, ("alpha", "gamma"), [Commit()])
    state, _ = answer_all(state, ("alpha", "gamma"))
    assert state.cells[1] == Cell("beta", 1, 1, "absent", "not-asked")
    state, actions = play(state, Aggregated(2.0, "m1"))
    assert actions[1:] == [Send(site) for site in SITES]


@pytest.mark.parametrize("applied", [0, 1])
def test_a_study_is_partial_where_a_late_joiner_missed_a_round(applied: int) -> None:
    """Also where it is there for all that is left, the open round being retried for it."""
    state, _ = play(launched(sites=("alpha", "beta")), *(SiteUp(0.0, s) for s in ("alpha", "beta")))
    for number in range(1, applied + 1):
        state, _ = answer_all(state, ("alpha", "beta"))
        state, _ = play(state, Aggregated(2.0, f"m{number}"))
    state, _ = play(state, SiteJoined(3.0, "gamma"), SiteUp(3.0, "gamma"))
    if applied:
        state, _ = play(state, order("retry"))
    while state.status == "open":
        state, _ = answer_all(state, state.pending)
        state, _ = play(state, Aggregated(4.0, f"m{state.round}"))
    assert (state.outcome, state.missed) == ("PARTIAL", ("gamma",))


def test_a_site_that_joins_before_the_first_round_opens_misses_nothing() -> None:
    state, _ = play(launched(sites=("alpha", "beta")), SiteJoined(1.0, "gamma"))
    state, _ = play(state, *(SiteUp(2.0, site) for site in SITES))
    while state.status == "open":
        state, _ = answer_all(state, SITES)
        state, _ = play(state, Aggregated(4.0, f"m{state.round}"))
    assert state.outcome == "COMPLETE"


def test_a_site_that_was_stopped_can_be_taken_in_again() -> None:
    state, _ = play(opened(), SiteStopped(1.0, "gamma", "membership-ended"))
    state, actions = play(state, SiteJoined(2.0, "gamma"), SiteUp(2.0, "gamma"))
    assert (state.stopped, state.pending, actions) == ({}, ("alpha", "beta"), [Commit()])


@pytest.mark.parametrize("site", ["alpha", "nobody"])
def test_who_is_in_already_or_was_not_invited_does_not_join(site: str) -> None:
    assert play(opened(), SiteJoined(1.0, site)) == (opened(), [])


def test_an_answer_to_a_gathering_study_is_not_owed() -> None:
    first = opened()
    state, _ = play(first, Resumed(5.0))
    assert not expects(state, "alpha", task_key(first), "")
