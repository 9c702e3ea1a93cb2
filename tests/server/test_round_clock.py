"""Every site has a deadline of its own: from its own history, longer after it was late."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from larrey_server.round_clock import allowance, due, learned, learned_late
from larrey_server.round_values import (
    Aggregated,
    Reply,
    Resumed,
    SiteDown,
    SiteUp,
    State,
    Ticked,
)
from larrey_server.rounds import deadline, next_wake
from tests.server.round_play import PLAN, SITES, answer_all, opened, order, paced, play, reply

LONG = replace(PLAN, rounds=50, deadline_s=1000.0)
SLACK = 50.0  # a twentieth of that deadline
seconds = st.floats(0, 1e4)


def next_round(state: State, at: float, sites: tuple[str, ...], work: float = 1.0) -> State:
    """Return the state after these sites answered a round, the last one at ``at``."""
    for site in sites:
        state, _ = play(state, reply(state, site, at, work=work))
    if state.status == "open":
        wake = next_wake(state, at)
        while state.status == "open" and wake is not None:
            state, at = play(state, Ticked(wake))[0], wake
            wake = next_wake(state, at)
    return play(state, Aggregated(at, f"m{state.round}"))[0]


def test_a_site_without_a_history_has_until_the_deadline_of_the_round() -> None:
    assert due(opened(), "gamma") == deadline(opened()) == 60.0


def test_a_site_with_a_history_has_patience_times_its_usual_time_and_a_twentieth() -> None:
    rows = ((10.0, 5.0),) * 9 + ((90.0, 5.0),)  # one slow answer of ten is not usual
    state = replace(opened(LONG), pace={"gamma": {"train": rows}})
    assert allowance(state, "gamma") == 3.0 * (10.0 + 5.0) + SLACK
    assert due(state, "gamma") == 95.0
    state = replace(state, plan=replace(state.plan, patience=2.0))
    assert due(state, "gamma") == 80.0


def test_no_site_has_longer_than_the_round() -> None:
    state = paced(opened(), 1e6)
    assert due(state, "gamma") == deadline(state)


def test_the_clock_of_a_site_starts_when_it_is_asked() -> None:
    state = paced(opened(up=("alpha", "beta")), 1.0)
    assert due(state, "gamma") is None
    state, _ = play(state, SiteUp(7.0, "gamma"))
    assert due(state, "gamma") == 13.0


def test_a_broken_connection_does_not_start_the_clock_of_a_site_anew() -> None:
    state, _ = play(paced(opened(), 1.0), SiteDown(1.0, "gamma"), SiteUp(2.0, "gamma"))
    assert due(state, "gamma") == 6.0


def test_a_round_closes_without_who_is_later_than_it_ever_is() -> None:
    state, _ = answer_all(paced(opened(), 1.0), ("alpha", "beta"))
    assert next_wake(state, 1.0) == 6.0
    assert play(state, Ticked(5.9))[0].status == "open"
    state, _ = play(state, Ticked(6.0))
    assert (state.status, state.cells[2].outcome) == ("closing", "late")


def test_below_quorum_nobody_is_too_late_until_the_round_s_own_deadline() -> None:
    state, _ = answer_all(paced(opened(), 1.0), ("alpha",))
    state, _ = play(state, Ticked(59.0))
    assert (state.status, state.attempt) == ("open", 1)
    assert play(state, reply(state, "gamma", 59.5))[0].status == "closing"


def test_a_slow_site_has_more_time_than_a_quick_one() -> None:
    state = replace(opened(LONG), pace={})
    for site, work in (("alpha", 1.0), ("beta", 1.0), ("gamma", 20.0)):
        state, _ = play(state, reply(state, site, 20.0, work=work))
    state, _ = play(state, Aggregated(20.0, "m1"))
    dues = {site: due(state, site) for site in SITES}
    assert dues == {"alpha": 73.0, "beta": 73.0, "gamma": 130.0}


def test_who_was_late_gets_twice_the_time_it_had() -> None:
    state = paced(opened(LONG), 10.0)
    had = allowance(state, "gamma")
    state = next_round(state, 1.0, ("alpha", "beta"))
    assert state.round == 2
    assert allowance(state, "gamma") == 3.0 * 2 * had + SLACK
    assert state.overdue == {}


@given(count=st.integers(1, 20), work=st.floats(0, 100))
def test_the_next_deadline_of_a_late_site_is_longer_whatever_its_history(
    count: int, work: float
) -> None:
    state = replace(opened(LONG), pace={"gamma": {"train": ((work, 0.0),) * count}})
    had = allowance(state, "gamma")
    assert allowance(learned_late(state, had), "gamma") >= min(2 * had, LONG.deadline_s)


def test_a_slow_site_that_was_late_comes_in_again_within_few_rounds() -> None:
    """A site whose data grew ninefold is late until its deadline has grown as well."""
    state, now, taken = paced(opened(LONG), 10.0), 0.0, 300.0
    missed = 0
    for number in range(1, 6):
        state = replace(state, asked=dict.fromkeys(SITES, now), opened_at=now)
        for site in ("alpha", "beta"):
            state, _ = play(state, reply(state, site, now + 10.0, work=10.0))
        until = due(state, "gamma")
        assert until is not None
        in_time = until >= now + taken
        missed += not in_time
        now = now + taken if in_time else until
        event = reply(state, "gamma", now, work=taken) if in_time else Ticked(now)
        state, _ = play(state, event, Aggregated(now, f"m{number}"))
    assert missed == 1
    assert state.overdue == {}


def test_a_hung_site_holds_up_all_rounds_together_for_little_more_than_one_deadline() -> None:
    state, now, spent = opened(LONG), 0.0, []
    for number in range(1, 31):
        for site in ("alpha", "beta"):
            state, _ = play(state, reply(state, site, now + 1.0, work=1.0))
        began, now = now, now + 1.0
        while state.status == "open":
            wake = next_wake(state, now)
            assert wake is not None
            now = wake
            state, _ = play(state, Ticked(now))
        spent.append(now - began)
        state, _ = play(state, Aggregated(now, f"m{number}"))
    assert spent[0] == LONG.deadline_s
    assert [seconds for seconds in spent[1:] if seconds > 1.0] == [LONG.patience + SLACK] * 5
    assert sum(spent[1:]) < 29 * 1.0 + LONG.deadline_s * 0.3


def test_a_site_without_sign_of_life_is_waited_for_as_if_it_were_the_slowest_of_the_others() -> (
    None
):
    state = replace(opened(LONG), overdue={"gamma": 5})
    state, _ = play(state, reply(state, "alpha", 7.0, work=7.0))
    assert allowance(state, "gamma") == LONG.patience * 7.0 + SLACK
    rows = ((9.0, 1.0), (500.0, 0.0))
    state = replace(state, pace={"gamma": {"train": rows}})
    assert allowance(state, "gamma") == LONG.patience * 10.0 + SLACK


def test_stored_answers_of_others_do_not_hurry_a_site() -> None:
    state = paced(opened(LONG), 20.0, sites=("alpha", "beta"))
    state = replace(state, overdue={"gamma": 1}, is_repeat=True)
    state, _ = play(state, reply(state, "alpha", 0.1, work=0.1))
    assert allowance(state, "gamma") == LONG.patience * 20.0 + SLACK


@pytest.mark.parametrize("event", [SiteUp(1.0, "gamma"), order("extend", 2, 1.0, "10")])
def test_a_site_that_connects_anew_or_is_given_time_is_waited_for_again(event: object) -> None:
    state = replace(opened(LONG), overdue={"gamma": 5}, away={"gamma": 9.0})
    assert play(state, event)[0].overdue == {}  # type: ignore[arg-type]


def test_a_site_that_answers_is_waited_for_again() -> None:
    state = replace(opened(LONG), overdue={"gamma": 5})
    state, _ = play(state, reply(state, "gamma", 1.0, code="trainer-crashed"))
    assert state.overdue == {}


def test_a_site_that_came_late_into_a_round_is_not_blamed_for_its_end() -> None:
    before, _ = play(paced(opened(up=("alpha", "beta")), 5.0), SiteUp(50.0, "gamma"))
    state, _ = answer_all(before, ("alpha", "beta"), 55.0)
    state, _ = play(state, Ticked(60.0))
    assert (state.status, state.cells[2].outcome, state.overdue) == ("closing", "late", {})
    assert state.pace["gamma"] == before.pace["gamma"]


def test_a_site_that_is_away_teaches_nothing_about_its_pace() -> None:
    state, _ = play(paced(opened(), 1.0), SiteDown(1.0, "gamma"))
    state, _ = answer_all(state, ("alpha", "beta"))
    after, _ = play(state, Ticked(6.0))
    assert (after.status, after.cells[2].outcome) == ("closing", "absent")
    assert after.pace["gamma"] == state.pace["gamma"]


def test_a_stored_answer_after_a_repetition_or_restart_says_nothing_of_a_pace() -> None:
    again, _ = play(opened(), order("retry"))
    reborn, _ = play(opened(), Resumed(5.0), *(SiteUp(5.0, site) for site in SITES))
    for state in (again, reborn):
        assert play(state, reply(state, "alpha", 6.0, work=0.01))[0].pace == {}
    state, _ = answer_all(again, SITES)
    state, _ = play(state, Aggregated(7.0, "m1"))
    assert play(state, reply(state, "alpha", 9.0, work=2.0))[0].pace["alpha"] == {
        "train": ((2.0, 0.0),)
    }


def test_what_a_site_took_long_ago_is_forgotten() -> None:
    state = opened(LONG)
    for work in range(25):
        state = learned(state, Reply("gamma", "train", "u", work_s=float(work)))
    assert state.pace["gamma"]["train"] == tuple((float(n), 0.0) for n in range(5, 25))


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=30))
def test_the_last_twenty_answers_make_the_pace_of_a_phase(rows: list[tuple[float, float]]) -> None:
    state = opened(LONG)
    for work, move in rows:
        answer = Reply("gamma", "train", "u", work_s=work, transfer_s=move)
        state = learned(state, answer)
    kept = state.pace["gamma"]["train"]
    assert kept == tuple((round(w, 3), round(m, 3)) for w, m in rows[-20:])
    usual = [sorted(column)[-1 - len(kept) // 10] for column in zip(*kept, strict=True)]
    assert allowance(state, "gamma") == pytest.approx(3.0 * sum(usual) + SLACK)
