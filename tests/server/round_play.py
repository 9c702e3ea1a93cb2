"""A plan, and short words for playing events through the rules of rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from larrey_server.round_snapshots import restore, snapshot
from larrey_server.round_values import (
    Action,
    Event,
    Launched,
    Ordered,
    Plan,
    Replied,
    Reply,
    Resumed,
    SiteUp,
    State,
)
from larrey_server.rounds import advance, begin, task_key

SITES = ("alpha", "beta", "gamma")
PLAN = Plan("sha256:" + "0" * 64, SITES, rounds=2, spare_rounds=1, quorum=2, deadline_s=60.0)


def play(state: State, *events: Event) -> tuple[State, list[Action]]:
    done: list[Action] = []
    for event in events:
        state, actions = advance(state, event)
        done += actions
    return state, done


def reply(
    state: State, site: str, at: float = 1.0, code: str = "", work: float = 0.0, move: float = 0.0
) -> Replied:
    key = task_key(state)
    update = "" if code else f"update of {site} in {key.round}"
    return Replied(at, key, Reply(site, key.phase, update, code, work_s=work, transfer_s=move))


def launched(plan: Plan = PLAN, sites: tuple[str, ...] = ()) -> State:
    return play(begin(plan, "m0"), Launched(0.0, sites or plan.invited))[0]


def opened(plan: Plan = PLAN, up: tuple[str, ...] = SITES) -> State:
    """Return a study whose first round is open, or that gathers where too few are up."""
    return play(launched(plan), *(SiteUp(0.0, site) for site in up))[0]


def answer_all(state: State, sites: Sequence[str], at: float = 1.0) -> tuple[State, list[Action]]:
    done: list[Action] = []
    for site in sites:
        state, actions = play(state, reply(state, site, at))
        done += actions
    return state, done


def order(
    verb: str, number: int = 2, at: float = 5.0, subject: str = "", reason: str = ""
) -> Ordered:
    return Ordered(at, verb, number, "ada", 1000.0, "", subject, reason)  # type: ignore[arg-type]


def reborn(state: State, at: float = 50.0, up: tuple[str, ...] = SITES) -> State:
    """Return the state after the coordinator was killed and started, some sites back."""
    state = remembered(state)
    return play(state, Resumed(at), *(SiteUp(at, site) for site in up))[0]


def remembered(state: State) -> State:
    """Return the state as the journal gives it back."""
    return restore(state.plan, json.loads(json.dumps(snapshot(state))))


def paced(state: State, seconds: float, sites: Sequence[str] = SITES) -> State:
    """Return the state of a study whose sites always took so long for each phase."""
    rows = ((seconds, 0.0),) * 5
    return replace(state, pace={site: dict.fromkeys(state.plan.phases, rows) for site in sites})
