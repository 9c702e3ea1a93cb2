"""A round of four phases, as secure aggregation has them, needs nothing of the rules but its names.

Keys are exchanged, shares are dealt, masked updates are sent, masks of those who dropped are
opened: each phase asks those who answered the one before, and a phase that falls below quorum
repeats the whole round.
"""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from larrey_server.round_values import (
    Action,
    Aggregate,
    Aggregated,
    Cancel,
    Commit,
    Send,
    SiteDown,
    SiteUp,
    State,
    Ticked,
)
from larrey_server.rounds import deadline, task_key
from tests.server.round_play import PLAN, answer_all, opened, order, play, reborn, reply

PHASES = ("keys", "shares", "masked", "unmask")
SITES = ("alpha", "beta", "gamma", "delta")
DUMMY = replace(
    PLAN, invited=SITES, phases=PHASES, quorum=3, deadline_s=40.0, rounds=1, spare_rounds=1
)


def at_phase(number: int) -> State:
    """Return the dummy round at one of its phases, all sites still there."""
    state = opened(DUMMY, SITES)
    for _ in range(number):
        state, _ = answer_all(state, SITES)
    return state


def sends(actions: list[Action]) -> tuple[str, ...]:
    return tuple(action.site for action in actions if isinstance(action, Send))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_each_phase_asks_those_who_answered_the_one_before(number: int) -> None:
    state = at_phase(number)
    assert task_key(state).phase == PHASES[number]
    state, _ = answer_all(state, ("delta", "alpha", "beta"))
    state, actions = play(state, Ticked(deadline(state)))
    assert task_key(state).phase == PHASES[number + 1]
    assert (sends(actions), state.pending) == (("alpha", "beta", "delta"),) * 2
    assert isinstance(actions[0], Commit)
    assert actions[1] == Cancel("gamma", replace(task_key(state), phase=PHASES[number]))


def test_the_phases_share_the_deadline_of_the_round() -> None:
    assert [deadline(at_phase(number)) for number in range(4)] == [10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize("number", range(4))
def test_below_quorum_in_any_phase_the_round_is_repeated_from_its_first(number: int) -> None:
    state, _ = answer_all(at_phase(number), ("alpha", "beta"))
    state, actions = play(state, Ticked(deadline(state)))
    assert (task_key(state).phase, state.attempt, state.spares_left) == ("keys", 2, 0)
    assert (sends(actions), state.applied) == (SITES, 0)
    state, _ = play(state, Ticked(deadline(state)))
    assert (state.status, state.stop_code) == ("paused", "below-quorum")


def test_the_aggregate_is_of_those_who_answered_every_phase_in_roster_order() -> None:
    state, _ = answer_all(at_phase(3), ("delta", "gamma", "alpha"))
    state, actions = play(state, Ticked(deadline(state)))
    (aggregate,) = (action for action in actions if isinstance(action, Aggregate))
    assert [site for site, _ in aggregate.updates] == ["alpha", "gamma", "delta"]
    assert {cell.site: cell.outcome for cell in state.cells}["beta"] == "late"


def test_a_site_that_dropped_out_of_a_phase_has_its_outcome_of_that_phase() -> None:
    state, _ = answer_all(at_phase(1), ("alpha", "beta", "delta"))
    state, _ = play(state, Ticked(deadline(state)))  # gamma was late with its shares
    state, _ = play(state, reply(state, "delta", 21.0, code="trainer-crashed"))
    state, _ = answer_all(state, ("alpha", "beta"))
    assert (state.attempt, state.status) == (2, "gathering")  # two are below the quorum of three
    assert state.refusals == {"delta": "trainer-crashed"}


@pytest.mark.parametrize("number", range(4))
def test_an_answer_counts_in_its_own_phase_only(number: int) -> None:
    state = at_phase(number)
    for phase in set(PHASES) - {PHASES[number]}:
        other = replace(state, phase=PHASES.index(phase))
        assert play(state, reply(other, "alpha")) == (state, [])


def test_a_site_that_lost_its_connection_in_a_phase_is_asked_for_that_phase_again() -> None:
    state, _ = play(at_phase(2), SiteDown(1.0, "beta"))
    state, actions = play(state, SiteUp(2.0, "beta"))
    assert (sends(actions), task_key(state).phase) == (("beta",), "masked")


def test_the_clock_of_a_site_starts_anew_with_each_phase() -> None:
    state, _ = answer_all(opened(DUMMY, SITES), SITES, 7.0)
    assert state.asked == dict.fromkeys(SITES, 7.0)


@pytest.mark.parametrize("number", range(4))
def test_a_restart_a_retry_and_an_exclusion_begin_or_leave_the_round_as_any_other(
    number: int,
) -> None:
    state = at_phase(number)
    assert task_key(reborn(state, up=SITES)) == task_key(at_phase(0))
    assert task_key(play(state, order("retry"))[0]) == replace(task_key(at_phase(0)), attempt=2)
    out, _ = play(state, order("exclude", subject="beta"))
    assert (out.pending, out.phase) == (("alpha", "gamma", "delta"), number)
    assert all(one.site != "beta" for one in out.replies)


@given(orders=st.lists(st.permutations(SITES), min_size=4, max_size=4))
def test_the_aggregate_is_the_same_whatever_the_order_of_arrival(
    orders: list[tuple[str, ...]],
) -> None:
    state = opened(DUMMY, SITES)
    for sites in orders:
        state, actions = answer_all(state, sites)
    updates = tuple((site, f"update of {site} in 1") for site in SITES)
    assert actions[-1] == Aggregate(updates)
    state, _ = play(state, Aggregated(9.0, "m1"))
    assert (state.status, state.outcome) == ("ended", "COMPLETE")
