"""Orders of people on call: exclude and include a site, extend and retry a round."""

from __future__ import annotations

import pytest

from larrey_server.round_opening import Missing, missing
from larrey_server.round_values import (
    Action,
    Aggregated,
    Cancel,
    Cell,
    Commit,
    Event,
    Send,
    SiteJoined,
    SiteUp,
    State,
    Ticked,
)
from larrey_server.rounds import begin, deadline, next_wake, task_key
from tests.server.round_play import (
    PLAN,
    SITES,
    answer_all,
    launched,
    opened,
    order,
    paced,
    play,
    reborn,
    reply,
)

OUT = order("exclude", 2, 5.0, "gamma", "its scanner broke")


def applied(state: State, sites: tuple[str, ...], *events: Event) -> tuple[State, list[Action]]:
    """Play the round to its end, and events before the next one opens."""
    state, _ = answer_all(state, sites)
    return play(state, *events, Aggregated(6.0, f"m{state.round}"))


def below_quorum() -> State:
    return play(opened(), Ticked(60.0), Ticked(120.0))[0]


def test_an_excluded_site_is_taken_out_of_the_open_round_with_what_it_brought() -> None:
    state, _ = answer_all(opened(), ("gamma",))
    state, actions = play(state, OUT)
    assert (actions, state.excluded) == ([Commit()], {"gamma": "its scanner broke"})
    state, actions = answer_all(state, ("alpha", "beta"))
    assert [site for site, _ in actions[-1].updates] == ["alpha", "beta"]  # type: ignore[union-attr]
    assert state.cells[2] == Cell("gamma", 1, 1, "excluded", "excluded-by-order")


def test_an_excluded_site_that_works_is_told_to_stop_and_what_it_answers_does_not_count() -> None:
    first = opened()
    state, actions = play(first, OUT)
    assert actions == [Commit(), Cancel("gamma", task_key(first))]
    assert play(state, reply(first, "gamma")) == (state, [])


def test_a_round_closes_when_the_site_it_waited_for_is_excluded() -> None:
    state, _ = answer_all(opened(), ("alpha", "beta"))
    state, actions = play(state, OUT)
    assert state.status == "closing"
    assert [type(a).__name__ for a in actions] == ["Commit", "Cancel", "Aggregate"]


def test_an_excluded_site_is_not_asked_until_it_is_included_and_a_round_opens() -> None:
    state, actions = applied(play(opened(), OUT)[0], ("alpha", "beta"))
    assert actions[1:] == [Send("alpha"), Send("beta")]
    state, actions = play(state, order("include", 3, subject="gamma"))
    assert (actions, state.excluded, state.pending) == ([Commit()], {}, ("alpha", "beta"))
    state, _ = play(state, order("retry", 4))
    assert state.pending == SITES


def test_an_excluded_site_that_reconnects_is_not_asked() -> None:
    state, _ = play(opened(up=("alpha", "beta")), OUT)
    assert play(state, SiteUp(6.0, "gamma"))[1] == []


def test_a_study_without_quorum_by_exclusion_gathers_and_spends_nothing() -> None:
    state, _ = play(opened(), OUT)
    state, _ = answer_all(state, ("beta",))
    state, actions = play(state, order("exclude", 3, 5.0, "beta"))  # alpha is not waited for
    assert isinstance(actions[0], Commit)
    assert [cell.outcome for cell in actions[0].cells] == ["halted", "excluded", "excluded"]
    assert (state.status, state.attempt, state.spares_left) == ("gathering", 2, PLAN.spare_rounds)
    wanted = (Missing("beta", "excluded"), Missing("gamma", "excluded"))
    assert missing(state, 6.0) == wanted
    state, actions = play(state, order("include", 4, subject="beta"))
    assert (state.status, actions) == ("open", [Commit(), Send("alpha"), Send("beta")])


def test_an_exclusion_that_ends_an_attempt_costs_no_spare_one() -> None:
    state, _ = play(
        launched(sites=("alpha", "beta")),
        SiteUp(0.0, "alpha"),
        SiteUp(0.0, "beta"),
        SiteJoined(1.0, "gamma"),
        SiteUp(1.0, "gamma"),
    )
    state, actions = play(state, order("exclude", subject="beta"))
    assert actions[-2:] == [Send("alpha"), Send("gamma")]
    assert (state.status, state.attempt, state.spares_left) == ("open", 2, PLAN.spare_rounds)


def test_a_study_with_an_excluded_site_ends_partial() -> None:
    state, _ = play(opened(), OUT)
    while state.status == "open":
        state, _ = applied(state, ("alpha", "beta"))
    assert (state.outcome, state.missed) == ("PARTIAL", ("gamma",))


def test_an_exclusion_is_not_lost_in_a_restart() -> None:
    state = reborn(play(opened(), OUT)[0])
    assert (state.excluded, state.pending) == ({"gamma": "its scanner broke"}, ("alpha", "beta"))


def test_an_extended_round_waits_longer_for_everybody_and_wakes_later() -> None:
    state, _ = answer_all(paced(opened(), 1.0), ("alpha", "beta"))
    assert next_wake(state, 1.0) == 6.0
    state, actions = play(state, order("extend", 2, 5.0, "100"))
    assert (actions, deadline(state), next_wake(state, 5.0)) == ([Commit()], 160.0, 106.0)
    assert play(state, Ticked(105.0))[0].status == "open"
    assert play(state, Ticked(106.0))[0].status == "closing"


def test_an_extension_is_of_one_attempt() -> None:
    state, _ = play(opened(), order("extend", 2, 5.0, "100"), Ticked(160.0))
    assert (state.attempt, deadline(state)) == (2, 220.0)
    state, _ = play(state, order("extend", 3, 165.0, "100"))
    state, _ = applied(state, SITES)
    assert (state.round, deadline(state)) == (2, 66.0)


@pytest.mark.parametrize("seconds", ["", "soon", "nan", "inf", "-5", "0"])
def test_an_extension_by_nothing_changes_nothing_but_its_number(seconds: str) -> None:
    state, _ = play(opened(), order("extend", 2, 5.0, seconds))
    assert (state.order, state.extended_s) == (2, 0.0)


def test_a_round_is_never_extended_by_more_than_a_week() -> None:
    state, _ = play(opened(), *(order("extend", n, 5.0, "600000") for n in (2, 3)))
    assert state.extended_s == 7 * 86400.0


def test_a_retry_repeats_the_open_round_at_once_and_costs_no_spare() -> None:
    first, _ = answer_all(opened(), ("alpha",))
    state, actions = play(first, order("retry"))
    assert (state.attempt, state.spares_left, state.model) == (2, PLAN.spare_rounds, "m0")
    assert isinstance(actions[0], Commit)
    assert [(cell.outcome, cell.code) for cell in actions[0].cells] == [
        ("contributed", "round-retried"),
        ("halted", "round-retried"),
        ("halted", "round-retried"),
    ]
    key = task_key(first)
    assert actions[1:3] == [Cancel("beta", key), Cancel("gamma", key)]
    assert actions[3:] == [Send(site) for site in SITES]


def test_a_retry_during_aggregation_lets_the_old_result_count_for_nothing() -> None:
    state, _ = answer_all(opened(), SITES)
    state, _ = play(state, order("retry"))
    assert play(state, Aggregated(6.0, "m1")) == (state, [])


@pytest.mark.parametrize("verb", ["retry", "resume"])
def test_a_study_paused_below_quorum_opens_a_further_attempt_by_order(verb: str) -> None:
    state = below_quorum()
    assert (state.status, state.stop_code) == ("paused", "below-quorum")
    state, actions = play(state, order(verb))
    assert (state.round, state.attempt, state.stop, state.stop_code) == (1, 3, "", "")
    assert actions == [Commit(), *(Send(site) for site in SITES)]


def test_a_retried_study_that_is_below_quorum_again_pauses_again() -> None:
    state, _ = play(below_quorum(), order("retry", at=130.0), Ticked(190.0))
    assert (state.status, state.stop_code, state.attempt) == ("paused", "below-quorum", 4)
    assert state.spares_left == 0


@pytest.mark.parametrize("verb", ["pause", "halt"])
def test_a_retry_does_not_undo_what_a_person_stopped(verb: str) -> None:
    state, _ = play(launched(), order(verb))
    after, actions = play(state, order("retry", 3))
    assert (after.status, after.stop, actions) == (state.status, verb, [Commit()])


def test_a_pause_by_a_person_takes_the_place_of_the_study_s_own() -> None:
    state, _ = play(below_quorum(), order("pause"))
    assert (state.status, state.stop_by, state.stop_code) == ("paused", "ada", "")
    assert play(state, order("retry", 3))[0].status == "paused"


def test_a_paused_round_that_falls_below_quorum_stays_the_person_s_pause() -> None:
    state, _ = play(opened(), Ticked(60.0), order("pause"), Ticked(120.0))
    assert (state.status, state.stop_by, state.stop_code) == ("paused", "ada", "")


@pytest.mark.parametrize("verb", ["exclude", "include", "extend", "retry"])
def test_an_order_on_call_is_noted_even_where_it_changes_nothing(verb: str) -> None:
    halted, _ = play(opened(), order("halt"))
    after, actions = play(halted, order(verb, 3, subject="nobody"))
    assert (after.order, after.status, actions) == (3, "halted", [Commit()])


@pytest.mark.parametrize("verb", ["exclude", "include", "extend", "retry"])
def test_nobody_is_on_call_before_the_launch_or_after_the_end(verb: str) -> None:
    for state in (begin(PLAN, "m0"), play(opened(), order("close"))[0]):
        assert play(state, order(verb, 3, subject="gamma")) == (state, [])
