"""The rules of rounds, event by event and as properties over random histories."""

from __future__ import annotations

import json
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from larrey_server.round_values import (
    Action,
    Aggregate,
    Aggregated,
    Cancel,
    Commit,
    Event,
    Launched,
    Plan,
    Replied,
    Reply,
    Resumed,
    Send,
    SiteDown,
    SiteUp,
    State,
    Ticked,
    restore,
    snapshot,
)
from larrey_server.rounds import advance, begin, deadline, next_wake, task_key

SITES = ("alpha", "beta", "gamma")
PLAN = Plan("sha256:" + "0" * 64, SITES, rounds=2, spare_rounds=1, quorum=2, deadline_s=60.0)


def play(state: State, *events: Event) -> tuple[State, list[Action]]:
    done: list[Action] = []
    for event in events:
        state, actions = advance(state, event)
        done += actions
    return state, done


def reply(state: State, site: str, at: float = 1.0, code: str = "") -> Replied:
    key = task_key(state)
    update = "" if code else f"update of {site} in {key.round}"
    return Replied(at, key, Reply(site, key.phase, update, code))


def opened(plan: Plan = PLAN, up: tuple[str, ...] = SITES) -> State:
    state, _ = play(begin(plan, "m0"), Launched(0.0, SITES), *(SiteUp(0.0, s) for s in up))
    return state


def answer_all(state: State, sites: tuple[str, ...]) -> tuple[State, list[Action]]:
    done: list[Action] = []
    for site in sites:
        state, actions = play(state, reply(state, site))
        done += actions
    return state, done


def test_a_round_opens_with_a_commit_before_any_request() -> None:
    state, _ = play(begin(PLAN, "m0"), Launched(0.0, SITES))
    state, _ = answer_all(replace(state, away={}), SITES)
    _, actions = play(state, Aggregated(2.0, "m1"))
    assert [type(a) for a in actions] == [Commit, Send, Send, Send]


def test_a_site_is_asked_when_it_comes_and_only_once() -> None:
    state, actions = play(begin(PLAN, "m0"), Launched(0.0, SITES), SiteUp(1.0, "beta"))
    assert actions == [Commit(), Send("beta")]
    assert play(state, SiteUp(2.0, "beta")) == (state, [])


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
    state = opened(up=("alpha",))
    state, _ = play(state, reply(state, "alpha"), Ticked(59.0))
    assert (state.status, state.attempt) == ("open", 1)


def test_below_quorum_at_the_deadline_the_round_is_repeated_with_the_same_model() -> None:
    state = opened(up=("alpha",))
    state, actions = play(state, reply(state, "alpha"), Ticked(60.0))
    assert (state.round, state.attempt, state.model, state.spares_left) == (1, 2, "m0", 0)
    assert isinstance(actions[0], Commit)
    assert actions[0].cells[0].code == "round-not-applied"


def test_without_spare_attempts_the_study_fails_with_a_reason() -> None:
    state, _ = play(opened(up=()), Ticked(60.0), Ticked(120.0))
    assert (state.status, state.outcome, state.reason) == ("ended", "FAILED", "below-quorum")
    assert state.applied == 0


def test_an_answer_to_an_earlier_attempt_of_the_same_round_counts() -> None:
    first = opened(up=("alpha",))
    state, _ = play(first, Ticked(60.0), reply(first, "alpha", 61.0))
    assert [r.site for r in state.replies] == ["alpha"]


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


def test_the_study_fails_when_refusals_leave_too_few_sites() -> None:
    state = opened()
    for site in ("beta", "gamma"):
        state, _ = play(state, reply(state, site, code="budget-exhausted"))
    state, _ = play(state, reply(state, "alpha"))
    assert (state.outcome, state.reason) == ("FAILED", "too-few-sites")


def test_a_study_that_everyone_served_is_complete() -> None:
    state = opened()
    for model in ("m1", "m2"):
        state, _ = answer_all(state, SITES)
        state, _ = play(state, Aggregated(2.0, model))
    assert (state.status, state.outcome, state.applied) == ("ended", "COMPLETE", 2)


def test_a_study_that_an_invited_site_did_not_join_is_partial() -> None:
    state, _ = play(begin(PLAN, "m0"), Launched(0.0, ("alpha", "beta")))
    for model in ("m1", "m2"):
        state, _ = answer_all(state, ("alpha", "beta"))
        state, _ = play(state, Aggregated(2.0, model))
    assert (state.outcome, state.reason) == ("PARTIAL", "sites-missing")


def test_a_failed_aggregation_ends_the_study_with_its_code() -> None:
    state, _ = answer_all(opened(), SITES)
    state, _ = play(state, Aggregated(2.0, code="disk-full"))
    assert (state.outcome, state.reason, state.model) == ("FAILED", "disk-full", "m0")


def test_a_restart_gives_the_round_its_time_again_and_asks_again() -> None:
    state, _ = play(opened(), Resumed(5.0))
    assert deadline(state) == 65.0
    assert play(state, SiteUp(6.0, "alpha"))[1] == [Send("alpha")]


def test_a_committed_state_survives_json() -> None:
    state, _ = play(opened(), SiteDown(1.0, "beta"))
    state, _ = play(state, reply(state, "gamma", code="budget-exhausted"))
    assert restore(PLAN, json.loads(json.dumps(snapshot(state)))) == state


def test_four_phases_pass_on_those_who_answered_and_share_the_deadline() -> None:
    plan = replace(PLAN, phases=("keys", "shares", "masked", "unmask"), deadline_s=40.0)
    state = opened(plan)
    state, _ = answer_all(state, SITES)
    assert task_key(state).phase == "shares"
    state, _ = play(state, reply(state, "alpha"), reply(state, "beta"), Ticked(20.0))
    assert (task_key(state).phase, state.pending) == ("masked", ("alpha", "beta"))
    for _ in range(2):
        state, actions = answer_all(state, ("beta", "alpha"))
    assert isinstance(actions[-1], Aggregate)
    assert [site for site, _ in actions[-1].updates] == ["alpha", "beta"]


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
    state = restore(JUDGED, json.loads(json.dumps(snapshot(state))))
    state, _ = play(state, Resumed(5.0))
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


class Histories(RuleBasedStateMachine):
    """Any order of events keeps the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.plan = Plan("s", ("a", "b", "c", "d"), 3, 2, quorum=2, deadline_s=30.0)
        self.state, self.committed = begin(self.plan, "m0"), begin(self.plan, "m0")
        self.keys = [task_key(replace(self.state, round=1, attempt=1))]
        self.applied: list[int] = []

    def feed(self, event: Event) -> None:
        before = self.state
        self.state, actions = advance(before, event)
        for action in actions:
            if isinstance(action, Aggregate):
                assert len(action.updates) >= self.plan.quorum
                sites = [site for site, _ in action.updates]
                assert sites == sorted(sites)
        if any(isinstance(a, Send) for a in actions) and before.pending != self.state.pending:
            assert isinstance(actions[0], Commit) or len(actions) == 1
        kinds = [type(a) for a in actions]
        if Cancel in kinds and Send in kinds:  # else a repeated request would be taken back
            assert kinds.index(Send) > len(kinds) - 1 - kinds[::-1].index(Cancel)
        if actions and isinstance(actions[0], Commit):
            self.committed = self.state
            self.keys.append(task_key(self.state))
        if self.state.applied > before.applied:
            self.applied.append(self.state.applied)

    @rule(sites=st.sets(st.sampled_from("abcd")))
    def launch(self, sites: set[str]) -> None:
        self.feed(Launched(self.now, tuple(sites)))

    @rule(site=st.sampled_from("abcd"))
    def up(self, site: str) -> None:
        self.feed(SiteUp(self.now, site))

    @rule(site=st.sampled_from("abcd"))
    def down(self, site: str) -> None:
        self.feed(SiteDown(self.now, site))

    @rule(
        site=st.sampled_from("abcd"),
        code=st.sampled_from(["", "", "", "trainer-crashed", "budget-exhausted"]),
        pick=st.integers(0, 3),
    )
    def answer(self, site: str, code: str, pick: int) -> None:
        key = self.keys[-1 - min(pick, len(self.keys) - 1)]
        self.feed(Replied(self.now, key, Reply(site, "train", "" if code else "u", code)))

    @rule(seconds=st.sampled_from([0.5, 3.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Ticked(self.now))

    @precondition(lambda self: self.state.status == "closing")
    @rule(code=st.sampled_from(["", "", "", "disk-full"]))
    def aggregate(self, code: str) -> None:
        model = "" if code else f"m{self.state.round}"
        self.feed(Aggregated(self.now, model, code))

    @precondition(lambda self: self.committed.status != "waiting")
    @rule()
    def restart(self) -> None:
        self.state = restore(self.plan, json.loads(json.dumps(snapshot(self.committed))))
        self.feed(Resumed(self.now))

    @invariant()
    def no_round_is_applied_twice_or_skipped(self) -> None:
        assert self.applied == list(range(1, len(self.applied) + 1))
        assert self.state.model == f"m{self.state.applied}"

    @invariant()
    def an_open_round_always_has_a_time_to_wake(self) -> None:
        wake = next_wake(self.state, self.now)
        assert (wake is not None) == (self.state.status == "open")

    def teardown(self) -> None:
        """Whatever happened, time alone ends the study."""
        self.feed(Launched(self.now, tuple("abcd")))
        for _ in range(12):
            if self.state.status == "closing":
                self.feed(Aggregated(self.now, f"m{self.state.round}"))
            wake = next_wake(self.state, self.now)
            if wake is not None:
                self.now = max(self.now, wake)
                self.feed(Ticked(self.now))
                self.feed(Ticked(self.now + 31.0))
                self.now += 31.0
        assert self.state.status == "ended"
        assert self.state.outcome in {"COMPLETE", "PARTIAL", "FAILED"}


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
