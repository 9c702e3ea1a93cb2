"""The rules of rounds, event by event: asking, closing, repeating, ending."""

from __future__ import annotations

import json
from dataclasses import replace

from larrey_server.round_snapshots import restore, snapshot
from larrey_server.round_values import (
    Aggregate,
    Aggregated,
    Cancel,
    Commit,
    Replied,
    Reply,
    Resumed,
    Send,
    SiteDown,
    SiteUp,
    Ticked,
)
from larrey_server.rounds import deadline, next_wake, task_key
from tests.server.round_play import PLAN, SITES, answer_all, launched, opened, play, reborn, reply


def test_a_round_opens_with_a_commit_before_any_request() -> None:
    state, _ = answer_all(opened(), SITES)
    _, actions = play(state, Aggregated(2.0, "m1"))
    assert [type(a) for a in actions] == [Commit, Send, Send, Send]


def test_a_site_is_asked_when_it_comes_and_only_once() -> None:
    state, actions = play(opened(up=("alpha", "beta")), SiteUp(1.0, "gamma"))
    assert actions == [Send("gamma")]
    assert play(state, SiteUp(2.0, "gamma")) == (state, [])


def test_the_round_closes_as_soon_as_all_have_answered_and_updates_are_in_roster_order() -> None:
    state, actions = answer_all(opened(), ("gamma", "alpha", "beta"))
    assert state.status == "closing"
    assert [site for site, _ in actions[-1].updates] == list(SITES)  # type: ignore[union-attr]


def test_a_round_waits_for_a_slow_live_site_until_the_deadline_and_calls_it_late() -> None:
    state, _ = answer_all(opened(), ("alpha", "beta"))
    assert play(state, Ticked(59.9))[0].status == "open"
    state, actions = play(state, Ticked(60.0))
    assert Cancel("gamma", task_key(opened())) in actions
    state, actions = play(state, Aggregated(61.0, "m1"))
    assert {c.site: c.outcome for c in actions[0].cells} == {  # type: ignore[union-attr]
        "alpha": "contributed",
        "beta": "contributed",
        "gamma": "late",
    }


def test_a_killed_site_holds_a_round_only_for_the_grace() -> None:
    state, _ = play(opened(), SiteDown(1.0, "gamma"))
    state, _ = answer_all(state, ("alpha", "beta"))
    assert next_wake(state, 1.0) == 3.0
    assert play(state, Ticked(2.9))[0].status == "open"
    assert play(state, Ticked(3.0))[0].status == "closing"


def test_a_dead_site_costs_later_rounds_nothing() -> None:
    state, _ = play(opened(), SiteDown(1.0, "gamma"))
    state, _ = answer_all(state, ("alpha", "beta"))
    state, _ = play(state, Ticked(3.0), Aggregated(3.1, "m1"))
    state, _ = play(state, reply(state, "alpha", 3.2), reply(state, "beta", 3.3))
    assert state.status == "closing"


def test_a_site_that_returns_before_the_close_is_asked_again() -> None:
    state, _ = play(opened(), SiteDown(1.0, "gamma"))
    _, actions = play(state, SiteUp(2.0, "gamma"))
    assert actions == [Send("gamma")]


def test_below_quorum_the_round_waits_for_absent_sites_until_the_deadline() -> None:
    state, _ = play(opened(), SiteDown(0.5, "beta"), SiteDown(0.5, "gamma"))
    state, _ = play(state, reply(state, "alpha"), Ticked(59.0))
    assert (state.status, state.attempt) == ("open", 1)


def test_below_quorum_at_the_deadline_the_round_is_repeated_with_the_same_model() -> None:
    state, actions = play(opened(), reply(opened(), "alpha"), Ticked(60.0))
    assert (state.round, state.attempt, state.model, state.spares_left) == (1, 2, "m0", 0)
    commit = next(action for action in actions if isinstance(action, Commit))
    assert commit.cells[0].code == "round-not-applied"
    key = task_key(opened())
    assert actions[1:3] == [Cancel("beta", key), Cancel("gamma", key)]
    assert actions[3:] == [Send(site) for site in SITES]


def test_without_spare_attempts_the_study_pauses_and_says_why() -> None:
    state, _ = play(opened(), Ticked(60.0))
    state, actions = play(state, Ticked(120.0))
    assert (state.status, state.stop, state.stop_code) == ("paused", "pause", "below-quorum")
    assert (state.applied, state.attempt, state.spares_left, state.outcome) == (0, 3, 0, "")
    assert isinstance(actions[0], Commit)
    assert {cell.outcome for cell in actions[0].cells} == {"late"}
    assert not any(isinstance(action, Send) for action in actions)


def test_an_answer_to_an_earlier_attempt_of_the_same_round_counts() -> None:
    first = opened()
    state, _ = play(first, Ticked(60.0), reply(first, "alpha", 61.0))
    assert [r.site for r in state.replies] == ["alpha"]


def test_a_refusal_of_an_earlier_attempt_does_not_count() -> None:
    first = opened()
    state, _ = play(first, Ticked(60.0))
    assert play(state, reply(first, "alpha", 61.0, code="trainer-crashed")) == (state, [])


def test_an_answer_to_an_attempt_that_was_never_made_does_not_count() -> None:
    state = opened()
    later = replace(state, attempt=2)
    assert play(state, reply(later, "alpha")) == (state, [])


def test_an_answer_to_an_earlier_round_does_not_count() -> None:
    first = opened()
    state, _ = answer_all(first, SITES)
    state, _ = play(state, Aggregated(2.0, "m1"))
    assert play(state, reply(first, "alpha", 3.0)) == (state, [])


def test_a_second_answer_of_a_site_changes_nothing() -> None:
    state, _ = answer_all(opened(), ("alpha",))
    assert play(state, reply(state, "alpha")) == (state, [])


def test_a_site_that_declines_the_study_is_not_asked_again() -> None:
    state = opened()
    state, _ = play(state, reply(state, "gamma", code="budget-exhausted"))
    state, _ = answer_all(state, ("alpha", "beta"))
    state, actions = play(state, Aggregated(2.0, "m1"))
    assert actions[1:] == [Send("alpha"), Send("beta")]


def test_a_site_that_fails_in_one_round_is_asked_in_the_next() -> None:
    state = opened()
    state, _ = play(state, reply(state, "gamma", code="trainer-crashed"))
    state, _ = answer_all(state, ("alpha", "beta"))
    _, actions = play(state, Aggregated(2.0, "m1"))
    assert Send("gamma") in actions


def test_the_study_pauses_when_refusals_leave_too_few_sites_and_spends_no_spare() -> None:
    state = opened()
    for site in ("beta", "gamma"):
        state, _ = play(state, reply(state, site, code="budget-exhausted"))
    state, _ = play(state, reply(state, "alpha"))
    assert (state.status, state.stop_code) == ("paused", "too-few-sites")
    assert state.spares_left == PLAN.spare_rounds


def test_a_study_that_everyone_served_is_complete() -> None:
    state = opened()
    for model in ("m1", "m2"):
        state, _ = answer_all(state, SITES)
        state, _ = play(state, Aggregated(2.0, model))
    assert (state.status, state.outcome, state.applied) == ("ended", "COMPLETE", 2)


def test_a_study_that_an_invited_site_did_not_join_is_partial() -> None:
    state = launched(sites=("alpha", "beta"))
    state, _ = play(state, SiteUp(0.0, "alpha"), SiteUp(0.0, "beta"))
    for model in ("m1", "m2"):
        state, _ = answer_all(state, ("alpha", "beta"))
        state, _ = play(state, Aggregated(2.0, model))
    assert (state.outcome, state.reason) == ("PARTIAL", "sites-missing")


def test_a_failed_aggregation_ends_the_study_with_its_code() -> None:
    state, _ = answer_all(opened(), SITES)
    state, _ = play(state, Aggregated(2.0, code="disk-full"))
    assert (state.outcome, state.reason, state.model) == ("FAILED", "disk-full", "m0")


def test_a_restart_gives_the_round_its_time_again_and_asks_again() -> None:
    state, actions = play(opened(), Resumed(5.0), SiteUp(6.0, "alpha"))
    assert (state.status, actions) == ("gathering", [])
    state, actions = play(state, SiteUp(7.0, "gamma"))
    assert actions == [Send("alpha"), Send("gamma")]
    assert (deadline(state), state.attempt, state.spares_left) == (67.0, 1, PLAN.spare_rounds)


def test_a_restart_asks_again_for_nothing_that_the_journal_does_not_name() -> None:
    first = opened()
    state = reborn(first)
    assert task_key(state) == task_key(first)


def test_a_committed_state_survives_json() -> None:
    state, _ = play(opened(), SiteDown(1.0, "beta"))
    state, _ = play(state, reply(state, "gamma", code="budget-exhausted"))
    assert restore(PLAN, json.loads(json.dumps(snapshot(state)))) == state


JUDGED = replace(PLAN, phases=("train", "evaluate"))


def test_the_aggregate_is_of_the_first_phase_and_of_those_who_answered_all() -> None:
    state, _ = answer_all(opened(JUDGED), SITES)
    trained = {r.site: r.update for r in state.replies}
    key = task_key(state)
    assert key.phase == "evaluate"
    told = [Replied(2.0, key, Reply(s, "evaluate", f"metrics of {s}")) for s in ("beta", "alpha")]
    no = Replied(2.0, key, Reply("gamma", "evaluate", code="app-failed"))
    state, actions = play(state, told[0], no, told[1])
    assert actions[-1] == Aggregate(tuple((s, trained[s]) for s in ("alpha", "beta")))
    assert [(c.outcome, c.code, c.update) for c in state.cells] == [
        ("contributed", "", trained["alpha"]),
        ("contributed", "", trained["beta"]),
        ("refused", "app-failed", ""),
    ]


def test_a_restart_begins_a_round_again_with_its_first_phase() -> None:
    state, _ = answer_all(opened(JUDGED), SITES)
    state = reborn(state, 5.0, up=("alpha", "gamma"))
    assert (task_key(state).phase, state.pending, state.replies) == ("train", SITES, ())
    assert deadline(state) == 35.0
    assert play(state, SiteUp(6.0, "beta"))[1] == [Send("beta")]


def test_the_metrics_of_a_round_stay_until_the_next_is_applied() -> None:
    state, _ = answer_all(opened(JUDGED), SITES)
    state, _ = answer_all(state, SITES)
    state, _ = play(state, Aggregated(3.0, "m1", metrics={"evaluate": {"loss": 0.5}}))
    assert state.round == 2
    assert restore(JUDGED, json.loads(json.dumps(snapshot(state)))).metrics == {
        "evaluate": {"loss": 0.5}
    }
