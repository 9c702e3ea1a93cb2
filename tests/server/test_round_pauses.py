"""What keeps attempts from being spent in vain: pauses after refusals, sites too slow to ask."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from larrey_server.cli_status import describe as said
from larrey_server.cli_watch import lines
from larrey_server.round_clock import pause
from larrey_server.round_values import (
    Action,
    Aggregated,
    AnsweredLate,
    Commit,
    Event,
    Plan,
    Resumed,
    Send,
    SiteDown,
    SiteUp,
    State,
    Ticked,
)
from larrey_server.rounds import next_wake
from larrey_server.watching import changes, describe
from tests.server.round_play import PLAN, SITES, answer_all, opened, order, play, reborn, reply
from tests.server.study_bench import make_study

ALL = replace(PLAN, quorum=3, spare_rounds=9, deadline_s=600.0)
STUDY = make_study()


def refused(state: State, at: float = 1.0) -> State:
    """Return the state after everybody answered, gamma that it cannot do it now."""
    state, _ = answer_all(state, ("alpha", "beta"), at)
    return play(state, reply(state, "gamma", at, "trainer-crashed"))[0]


def slow(plan: Plan = PLAN, rounds: int = 2) -> State:
    """Return a study in which gamma did not answer so many rounds in a row."""
    state, now = opened(plan), 0.0
    for number in range(1, rounds + 1):
        state, _ = answer_all(state, ("alpha", "beta"), now + 1.0)
        now += 60.0
        state, _ = play(state, Ticked(now), Aggregated(now, f"m{number}"))
    return state


MANY = replace(PLAN, rounds=9)


def test_pauses_grow_with_each_attempt_and_a_new_round_begins_with_the_shortest() -> None:
    state, found = opened(ALL), []
    for _ in range(4):
        at = state.opened_at
        state = refused(state, at)
        found.append(state.opens_not_before - at)
        state, _ = play(state, Ticked(state.opens_not_before))
        assert state.status == "open"
    assert found == [2.0, 8.0, 32.0, 60.0]
    state, _ = answer_all(state, SITES)
    state, _ = play(state, Aggregated(200.0, "m1"))
    assert state.status == "open"
    assert refused(state, 200.0).opens_not_before == 202.0


@given(st.floats(0.001, 7 * 86400), st.integers(1, 10**6))
def test_a_pause_is_never_longer_than_a_tenth_of_the_deadline(deadline: float, n: int) -> None:
    plan = replace(PLAN, deadline_s=deadline)
    assert 0 < pause(plan, n) <= pause(plan, n + 1) <= deadline * (1 / 10)


def test_nothing_but_time_opens_an_attempt_that_waits() -> None:
    state = refused(opened(ALL))
    assert (state.status, state.spares_left, next_wake(state, 1.0)) == ("gathering", 8, 3.0)
    for event in (Ticked(2.9), SiteDown(2.0, "beta"), order("extend", 2, 2.0, "9")):
        assert play(state, event)[0].status == "gathering"
    state, actions = play(state, Ticked(3.0))
    assert actions == [Send(site) for site in SITES]
    assert (state.opens_not_before, state.refusals) == (0.0, {})


@pytest.mark.parametrize(
    "events",
    [
        (order("retry", 2, 1.5),),
        (order("pause", 2, 1.5), order("resume", 3, 1.6)),
        (order("halt", 2, 1.5), order("resume", 3, 1.6)),
    ],
)
def test_a_person_need_not_wait(events: tuple[Event, ...]) -> None:
    state, actions = play(refused(opened(ALL)), *events)
    assert (state.status, state.attempt) == ("open", 2)
    assert actions[-4:] == [Commit(), *(Send(site) for site in SITES)]
    assert refused(state, 2.0).opens_not_before == 4.0  # the shortest again


def test_a_restart_does_not_wait_for_a_time_of_the_old_clock() -> None:
    state, _ = play(refused(opened(ALL)), Ticked(3.0))
    held = refused(state, 590.0)
    assert reborn(held, 7.0).status == "open"
    assert reborn(held, 7.0).failures == 2


def test_a_deadline_that_passed_is_pause_enough() -> None:
    state, _ = answer_all(opened(ALL), ("alpha",))
    state, _ = play(state, reply(state, "gamma", 1.0, "trainer-crashed"), Ticked(600.0))
    assert (state.status, state.attempt, state.failures) == ("open", 2, 0)


def test_too_few_sites_for_good_are_said_at_once_and_not_after_the_pause() -> None:
    state, _ = play(refused(opened(ALL)), SiteDown(1.5, "beta"))
    gone, _ = play(state, order("exclude", 2, 1.6, "beta"))
    assert gone.status == "gathering"
    state = replace(state, stopped={"beta": "site-withdrawn"})
    assert play(state, Ticked(1.7))[0].stop_code == "too-few-sites"


def test_watchers_are_told_when_the_next_attempt_opens_and_why() -> None:
    before = opened(ALL)
    state = refused(before)
    facts = describe(STUDY, state, at=1.0, checking=(), epsilon={}, wall=1_000_001.0)
    assert (facts["next_attempt_at"], facts["refusals"]) == (
        1_000_003.0, {"gamma": "trainer-crashed"},
    )  # fmt: skip
    told = "begins again at 13:46:43 UTC, since gamma refused (trainer-crashed)"
    assert told in said(facts)
    event = next(e for e in changes(before, state, ()) if e["event"] == "round-gathering")
    assert told in next(lines([{**event, "status": facts, "at": 0.0}]))
    assert "next_attempt_at" in facts
    after = describe(STUDY, state, at=3.0, checking=(), epsilon={})
    assert (after["next_attempt_at"], after["refusals"]) == (None, {})


def sends(actions: list[Action]) -> list[str]:
    return [action.site for action in actions if isinstance(action, Send)]


def test_a_site_that_was_too_slow_twice_is_not_asked_while_the_others_are_a_quorum() -> None:
    assert slow(MANY, 1).pending == SITES
    state = slow(MANY)
    assert (state.overdue, state.pending) == ({"gamma": 2}, ("alpha", "beta"))
    state, _ = answer_all(state, ("alpha", "beta"), 121.0)
    assert (state.cells[2].outcome, state.cells[2].code) == ("absent", "too-slow")


def test_a_site_that_stays_too_slow_is_asked_less_and_less_often_but_never_given_up() -> None:
    state, now, asked = opened(replace(PLAN, rounds=40)), 0.0, []
    for number in range(1, 41):
        asked += [number] if "gamma" in state.pending else []
        state, _ = answer_all(state, ("alpha", "beta"), now + 1.0)
        now += 60.0
        state, _ = play(state, Ticked(now), Aggregated(now, f"m{number}"))
    assert asked == [1, 2, 4, 7, 12, 21, 38]


def test_a_site_that_is_well_again_is_back_although_nobody_told() -> None:
    state, _ = answer_all(slow(MANY), ("alpha", "beta"), 121.0)
    state, _ = play(state, Aggregated(121.0, "m3"))
    assert state.pending == SITES
    state, _ = play(state, reply(state, "gamma", 122.0))
    assert state.overdue == {}


def test_attempts_of_one_round_are_one_round_of_a_slow_site() -> None:
    state = opened(ALL)
    for at in (600.0, 1200.0, 1800.0):
        state, _ = answer_all(state, ("alpha", "beta"), at - 1.0)
        state, _ = play(state, Ticked(at))
    assert (state.round, state.attempt, state.overdue) == (1, 4, {"gamma": 1})
    assert state.pending == SITES


@pytest.mark.parametrize("change", [{"quorum": 3}, {"required": ("gamma",)}])
def test_a_slow_site_without_which_there_is_no_round_is_asked(change: dict[str, object]) -> None:
    state = slow(MANY)
    plan = replace(state.plan, **change)  # type: ignore[arg-type]
    assert play(replace(state, plan=plan), order("retry", 2, 121.0))[0].pending == SITES


def test_a_slow_site_is_asked_where_another_is_away() -> None:
    state, _ = play(slow(MANY), SiteDown(121.0, "beta"), order("retry", 2, 122.0))
    assert "gamma" in state.asked


@pytest.mark.parametrize(
    ("event", "now", "next_round"),
    [
        (order("extend", 2, 121.0, "600"), True, True),
        (order("include", 2, 121.0, "gamma"), False, True),
        (order("include", 2, 121.0, "beta"), False, False),
        (AnsweredLate(119.0, "gamma", 2), False, True),  # asked at 60: a hiccup
        (AnsweredLate(121.0, "gamma", 2), False, False),
        (AnsweredLate(61.0, "gamma", 1), False, False),  # another request
    ],
)
def test_what_has_a_slow_site_asked_again(event: Event, now: bool, next_round: bool) -> None:
    state, actions = play(slow(MANY), event)
    assert sends(actions) == (["gamma"] if now else [])
    state, _ = play(state, order("retry", 3, 122.0))
    assert ("gamma" in state.pending) == next_round


def test_a_slow_site_that_connects_anew_is_asked_again() -> None:
    state, _ = play(slow(MANY), SiteDown(121.0, "gamma"), SiteUp(122.0, "gamma"))
    assert play(state, order("retry", 2, 123.0))[0].pending == SITES
    assert play(slow(MANY), Resumed(5.0))[0].last_asked == {}


def test_watchers_are_told_that_a_site_trains_for_nothing_and_what_to_do() -> None:
    before, _ = answer_all(opened(MANY), ("alpha", "beta"))
    after, _ = play(before, Ticked(60.0))
    (event,) = (e for e in changes(before, after, ()) if e["event"] == "site-overdue")
    facts = describe(STUDY, slow(MANY), at=121.0, checking=(), epsilon={})
    line = next(lines([{**event, "status": facts, "at": 0.0}]))
    assert "larrey study extend sketch SECONDS" in line
    assert "again" not in line
    assert "exclude sketch gamma" in line
    assert "gamma:left-out (too-slow)" in said(facts)


def test_watchers_are_told_when_a_site_that_was_too_slow_again_is_asked_next() -> None:
    before, _ = answer_all(slow(MANY, 1), ("alpha", "beta"), 61.0)
    after, _ = play(before, Ticked(120.0))
    (event,) = (e for e in changes(before, after, ()) if e["event"] == "site-overdue")
    facts = describe(STUDY, after, at=120.0, checking=(), epsilon={})
    line = next(lines([{**event, "status": facts, "at": 0.0}]))
    assert "while the others are a quorum, it is asked in round 4;" in line


def test_an_overdue_site_whose_round_is_repeated_trained_for_something() -> None:
    before, _ = answer_all(opened(), ("alpha",))
    after, _ = play(before, Ticked(60.0))
    assert after.overdue == {"beta": 1, "gamma": 1}
    assert not any(e["event"] == "site-overdue" for e in changes(before, after, ()))


def declined(code: str) -> State:
    state = opened()
    return play(state, replace(reply(state, "gamma", 1.0, code), decision="d1"))[0]


@pytest.mark.parametrize(
    ("code", "is_back"), [("budget-exhausted", True), ("approval-revoked", False)]
)
def test_a_site_that_declined_is_included_by_order_unless_it_revoked(
    code: str, is_back: bool
) -> None:
    before = declined(code)
    assert before.declined_under == {"gamma": "d1"}
    state, _ = play(before, order("include", 2, 2.0, "gamma"))
    told = [fact["event"] for fact in changes(before, state, ())]
    assert told == (["site-included"] if is_back else [])
    assert play(state, order("retry", 3, 3.0))[0].pending == (SITES if is_back else SITES[:2])
