"""What watchers and the trail are told of rounds that wait, and what the journal gives back."""

from __future__ import annotations

import string
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from larrey_server.late_answers import is_too_late
from larrey_server.round_values import (
    Aggregated,
    Cell,
    Event,
    Plan,
    Reply,
    SiteJoined,
    SiteStopped,
    SiteUp,
    SiteWindow,
    State,
    Ticked,
)
from larrey_server.rounds import task_key
from larrey_server.step_record import step_record
from larrey_server.watching import changes, describe
from tests.server.round_play import (
    PLAN,
    SITES,
    answer_all,
    launched,
    opened,
    order,
    paced,
    play,
    remembered,
    reply,
)
from tests.server.study_bench import make_study

STUDY = make_study()
OUT = order("exclude", 2, 5.0, "gamma", "its scanner broke")


def told(state: State, at: float = 10.0) -> dict[str, Any]:
    return describe(STUDY, state, at=at, checking=(), epsilon={}, wall=1_000_000.0 + at)


def site(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in facts["sites"] if row["site"] == name)


def kinds(before: State, *events: Event) -> list[str]:
    return [fact["event"] for fact in changes(before, play(before, *events)[0], ())]


def test_a_gathering_study_says_who_is_missing_why_and_until_when() -> None:
    state, _ = play(
        launched(sites=("alpha", "beta")), SiteUp(0.0, "alpha"), SiteWindow(0.0, "alpha", 50.0)
    )
    facts = told(state)
    assert (facts["state"], facts["present"], facts["quorum"]) == ("gathering", 0, 2)
    blank = {"code": "", "reason": "", "until": None}
    assert facts["missing"] == [
        {"site": "alpha", "why": "outside-window", **blank, "until": 1_000_050.0},
        {"site": "beta", "why": "away", **blank},
        {"site": "gamma", "why": "not-joined", **blank},
    ]
    assert site(facts, "alpha")["opens_at"] == 1_000_050.0


def test_an_open_study_says_when_each_site_is_due() -> None:
    state, _ = answer_all(paced(opened(), 1.0), ("alpha",))
    facts = told(state, 2.0)
    assert (facts["missing"], facts["deadline_s"]) == ([], 58.0)
    assert (site(facts, "alpha")["due_at"], site(facts, "gamma")["due_at"]) == (None, 1_000_006.0)


def test_an_excluded_site_is_shown_with_the_reason() -> None:
    facts = told(play(opened(), OUT)[0])
    assert site(facts, "gamma")["state"] == "excluded"
    assert site(facts, "gamma")["reason"] == "its scanner broke"


def test_a_study_that_waits_for_a_window_shows_it_at_the_site() -> None:
    state, _ = play(launched(), SiteWindow(0.0, "gamma", 50.0))
    state, _ = play(state, *(SiteUp(0.0, name) for name in SITES))
    facts = told(state)
    assert (facts["state"], site(facts, "gamma")["state"]) == ("open", "waiting")


def test_a_study_that_paused_itself_says_what_a_person_can_do() -> None:
    state, _ = play(opened(), Ticked(60.0), Ticked(120.0))
    facts = told(state)
    assert facts["next_step"] == "larrey study retry sketch"
    assert facts["stop_code"] == "below-quorum"
    assert told(play(opened(), order("halt"))[0])["next_step"] == ""


@pytest.mark.parametrize(
    ("before", "events", "wanted", "action"),
    [
        (opened(), [OUT], ["site-excluded"], "site-excluded"),
        (
            play(opened(), OUT)[0],
            [order("include", 3, subject="gamma")],
            ["site-included"],
            "site-included",
        ),
        (opened(), [order("extend", subject="5")], ["round-extended"], "round-extended"),
        (opened(), [order("retry")], ["round-opened"], "round-repeated"),
        (launched(sites=("alpha",)), [SiteJoined(1.0, "beta")], ["site-joined"], "site-joined"),
        (
            play(opened(), Ticked(60.0))[0],
            [Ticked(120.0)],
            ["study-paused"],
            "study-paused",
        ),
        (opened(), [order("pause")], ["pause-ordered"], "study-paused"),
        (launched(), [order("pause")], ["pause-ordered", "study-paused"], "study-paused"),
        (opened(), [order("halt")], ["halt-ordered"], "study-halted"),
        (opened(), [SiteStopped(1.0, "gamma", "x-y-z")], ["site-stopped"], "site-stopped"),
    ],
)
def test_each_step_is_told_to_watchers_and_to_the_trail(
    before: State, events: list[Event], wanted: list[str], action: str
) -> None:
    after, _ = play(before, *events)
    assert kinds(before, *events) == wanted
    assert step_record(before, after, 1.0).action == action


def test_the_trail_names_the_site_that_a_step_is_about() -> None:
    record = step_record(opened(), play(opened(), OUT)[0], 1.0)
    assert (record.subject, record.code) == ("gamma", "")
    gone, _ = play(opened(), SiteStopped(1.0, "beta", "site-withdrawn"))
    record = step_record(opened(), gone, 1.0)
    assert (record.subject, record.code) == ("beta", "site-withdrawn")


def test_watchers_hear_that_a_study_gathers_and_that_it_opens() -> None:
    state = launched()
    assert kinds(state, SiteUp(0.0, "alpha"))[-1] == "site-connected"
    assert "round-opened" in kinds(state, SiteUp(0.0, "alpha"), SiteUp(0.0, "beta"))
    state, _ = answer_all(opened(), SITES)
    lost, _ = play(state, order("exclude", subject="alpha"), order("exclude", 3, subject="beta"))
    assert kinds(lost, Aggregated(1.0, "m1"))[-1] == "round-gathering"


def test_watchers_hear_of_a_pause_after_the_round_that_led_to_it() -> None:
    state, _ = play(opened(), Ticked(60.0))
    after, actions = play(state, Ticked(120.0))
    cells = actions[0].cells  # type: ignore[union-attr]
    found = [fact["event"] for fact in changes(state, after, cells)]
    assert found == ["round-not-applied", "study-paused"]


@pytest.mark.parametrize(
    ("event", "code"), [(Ticked(60.0), "below-quorum"), (order("retry"), "retried")]
)
def test_a_round_that_was_not_applied_says_why(event: Event, code: str) -> None:
    state = opened()
    after, actions = play(state, event)
    facts = changes(state, after, actions[0].cells)  # type: ignore[union-attr]
    (closed,) = (fact for fact in facts if fact["event"] == "round-not-applied")
    assert closed["code"] == code


def test_an_update_for_a_round_that_was_applied_without_it_is_late() -> None:
    first, _ = answer_all(opened(), ("alpha", "beta"))
    key = task_key(first)
    assert not is_too_late(first, (), "gamma", key)
    closing, _ = play(first, Ticked(60.0))
    assert is_too_late(closing, (), "gamma", key)
    applied, actions = play(closing, Aggregated(61.0, "m1"))
    cells: tuple[Cell, ...] = actions[0].cells  # type: ignore[union-attr]
    assert [is_too_late(applied, cells, name, key) for name in SITES] == [False, False, True]


def test_what_may_count_in_a_further_attempt_is_not_late() -> None:
    first = opened()
    again, _ = play(first, order("halt"))
    assert not is_too_late(again, (), "gamma", task_key(first))
    assert not is_too_late(play(first, Ticked(60.0))[0], (), "gamma", task_key(first))


names = st.sampled_from(SITES)
words = st.text(string.printable, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)
phases = st.sampled_from(("train", "evaluate"))
site_lists = st.lists(names, max_size=3).map(tuple)
outcomes = st.sampled_from(("contributed", "late", "waiting", "excluded"))
replies = st.builds(Reply, names, phases, words, words, numbers, counts, numbers, numbers)
cells = st.builds(Cell, names, counts, counts, outcomes, words, numbers, counts, words, numbers)
paces = st.dictionaries(phases, st.lists(st.tuples(numbers, numbers), max_size=4).map(tuple))
plans: st.SearchStrategy[Plan] = st.just(PLAN)


@given(
    st.builds(
        State, plans, words, counts, st.sampled_from(("open", "gathering", "paused")),
        joined=site_lists, round=counts, attempt=counts, opened_at=numbers,
        away=st.dictionaries(names, numbers), pending=site_lists,
        replies=st.lists(replies, max_size=3).map(tuple),
        stopped=st.dictionaries(names, words), cells=st.lists(cells, max_size=3).map(tuple),
        missed=site_lists, metrics=st.dictionaries(phases, st.dictionaries(words, numbers)),
        pace=st.dictionaries(names, paces), overdue=st.dictionaries(names, counts),
        excluded=st.dictionaries(names, words), windows=st.dictionaries(names, numbers),
        asked=st.dictionaries(names, numbers), extended_s=numbers, is_repeat=st.booleans(),
    )
)  # fmt: skip
def test_the_journal_gives_back_exactly_what_it_was_given(state: State) -> None:
    assert remembered(state) == state


def test_a_reply_of_a_site_tells_how_long_it_took() -> None:
    state, _ = play(opened(), reply(opened(), "alpha", 5.0, work=4.0, move=1.0))
    state, _ = answer_all(state, ("beta", "gamma"))
    assert [cell.seconds for cell in state.cells] == [5.0, 0.0, 0.0]
