"""The rules of rounds: who is asked, when a round closes, what counts, when a study ends.

Pure: ``advance(state, event)`` gives the next state and what to do; it reads no clock and touches
nothing. `larrey_server.study_run` carries the actions out, the commit first, announcements after.

    waiting ── Launched ──▶ gathering ── quorum is there ──▶ open ── closes ──▶ closing
                             ▲                                │                  │ Aggregated
                             ├── below quorum: a spare ◀──────┤                  ▼
                             │   attempt, after a pause where │        gathering … the next round,
                             │   everybody answered           │
                             └── retry, resume ── paused ◀────┘        or ended
                                                  no spare left

How an attempt opens is in `round_opening`, how long it waits for whom in `round_clock`, how it
closes in `round_closing`, what people order in `round_orders`. The table of all of it, made from
this code, is in docs/architecture.md.

Phases of a round are data: each asks the sites that answered the one before; the aggregate is of
what the first one brought. An attempt repeats a round with the same model, so that a site that has
trained already sends the answer it stored; hence an answer to an earlier attempt of the same round
counts. A restart begins the open attempt again with its first phase: its receipts and the claims on
its updates are not in the journal, the sites have both.

A study never fails by itself while people can still act. It ends FAILED only when it is closed
with nothing applied, or when an aggregate cannot be made.
"""

from __future__ import annotations

from dataclasses import replace

from larrey_protocol.refusals import STANDING_REFUSALS
from larrey_server.round_cells import OUTSIDE, unapplied
from larrey_server.round_clock import deadline, forgiven, heard_late, learned, next_wake
from larrey_server.round_closing import settle
from larrey_server.round_keys import expects, task_key
from larrey_server.round_opening import Step, afresh, end, open_attempt
from larrey_server.round_orders import ordered, site_joined, site_stopped
from larrey_server.round_values import (
    Aggregated,
    AnsweredLate,
    Courier,
    Event,
    Launched,
    Ordered,
    Plan,
    Replied,
    Resumed,
    Send,
    SiteDown,
    SiteJoined,
    SiteStopped,
    SiteUp,
    SiteWindow,
    State,
    Task,
    TaskKey,
    Ticked,
)

__all__ = [
    "Courier",
    "Task",
    "TaskKey",
    "advance",
    "begin",
    "deadline",
    "expects",
    "next_wake",
    "task_key",
    "task_of",
]


_CLOCKS_DIFFER_S = 60.0  # windows open by the minute, and certificates forgive five of them


def begin(plan: Plan, model: str) -> State:
    """Return the state before launch; ``model`` is the digest of the starting point."""
    return State(plan, model, spares_left=plan.spare_rounds)


def task_of(state: State, model_bytes: int, *, at: float, peer_head: str) -> Task:
    """Return the request of the present phase.

    Args:
        state: with an open attempt.
        model_bytes: size of the model that sites fetch.
        at: now; the rest of the phase's time goes with the request.
        peer_head: where the coordinator's audit trail stands, ``seq:hash``.
    """
    key, left = task_key(state), max(0.0, deadline(state) - at)
    return Task(
        key.study, key.round, key.phase, key.attempt, key.model, model_bytes, left, peer_head
    )


def advance(state: State, event: Event) -> Step:  # noqa: C901, PLR0911 - one case an event
    """Return the next state and what to do, a commit first.

    An event that does not fit the state (a late answer, a site that is up already) changes nothing.
    """
    match event:
        case Launched():
            return _launched(state, event)
        case Resumed():
            return _resumed(state, event)
        case SiteUp():
            return _site_up(state, event)
        case SiteDown():
            return _site_down(state, event)
        case SiteWindow():
            return _site_window(state, event)
        case SiteJoined():
            return site_joined(state, event)
        case SiteStopped():
            return site_stopped(state, event)
        case Replied():
            return _replied(state, event)
        case AnsweredLate():
            return heard_late(state, event), ()
        case Ticked():
            return settle(state, event.at)
        case Aggregated():
            return _aggregated(state, event)
        case Ordered():
            return ordered(state, event)


def _launched(state: State, event: Launched) -> Step:
    if state.status != "waiting":
        return state, ()
    joined = tuple(site for site in state.plan.invited if site in event.sites)
    away = dict.fromkeys(joined, event.at + state.plan.arrival_s)
    state = replace(state, joined=joined, away=away, order=event.number, round=1, attempt=1)
    return open_attempt(state, event.at)


def _resumed(state: State, event: Resumed) -> Step:
    """Return the state on a new clock: the open attempt gathers again and has its time anew."""
    away = dict.fromkeys(state.joined, event.at + state.plan.arrival_s)
    state = replace(
        state, away=away, windows={}, asked={}, last_asked={},
        opened_at=event.at, opens_not_before=0.0, refusals={},
    )  # fmt: skip
    if state.status not in {"gathering", "open", "closing"}:
        return state, ()
    state = replace(
        state, status="gathering", is_repeat=True, phase=0, pending=(), replies=(), cells=()
    )
    return settle(state, event.at)  # too few sites may have been left


def _site_up(state: State, event: SiteUp) -> Step:
    """Ask a site that came; one that was asked before it went has lost the request."""
    site = event.site
    if site not in state.away:
        return state, ()
    away = {name: until for name, until in state.away.items() if name != site}
    was_asked = site in state.pending and site in state.asked
    after, actions = settle(replace(forgiven(state, site), away=away), event.at)
    is_same = (after.status, after.phase, after.attempt) == ("open", state.phase, state.attempt)
    return after, (Send(site), *actions) if was_asked and is_same else actions


def _site_down(state: State, event: SiteDown) -> Step:
    if event.site in state.away or event.site not in state.joined:
        return state, ()
    away = {**state.away, event.site: event.at + state.plan.grace_s}
    return settle(replace(state, away=away), event.at)


def _site_window(state: State, event: SiteWindow) -> Step:
    windows = {site: until for site, until in state.windows.items() if site != event.site}
    if event.opens_at > event.at and event.site in state.plan.invited:
        windows[event.site] = event.opens_at
    return settle(replace(state, windows=windows), event.at)


def _replied(state: State, event: Replied) -> Step:
    reply, at = event.reply, event.at
    if not expects(state, reply.site, event.key, reply.code):
        return state, ()
    if reply.code == OUTSIDE and state.phase == 0:
        return _outside(state, reply.site, at)
    stopped, under = state.stopped, state.declined_under
    if reply.code in STANDING_REFUSALS:
        stopped = {**stopped, reply.site: reply.code}
        under = {**under, reply.site: event.decision}
    pending = tuple(site for site in state.pending if site != reply.site)
    state = learned(state, reply)
    state = replace(state, pending=pending, stopped=stopped, declined_under=under)
    return settle(replace(state, replies=(*state.replies, reply)), at)


def _outside(state: State, site: str, at: float) -> Step:
    """Ask a site again when its window opens; where it should be open, clocks differ: soon."""
    opens = state.windows.get(site, 0.0)
    windows = {**state.windows, site: opens if opens > at else at + _CLOCKS_DIFFER_S}
    asked = {name: since for name, since in state.asked.items() if name != site}
    return settle(replace(state, windows=windows, asked=asked), at)


def _aggregated(state: State, event: Aggregated) -> Step:
    if state.status != "closing":
        return state, ()
    cells = state.cells
    if event.code:
        return end(state, "FAILED", event.code, unapplied(cells))
    there = {cell.site for cell in cells if cell.outcome == "contributed"} - set(state.missed)
    missed = tuple(site for site in state.joined if site not in there)
    state = replace(
        state, model=event.model, memory=event.memory, request=event.request,
        applied=state.round, missed=missed, metrics=event.metrics,
    )  # fmt: skip
    if state.round < state.plan.rounds:
        state = replace(state, round=state.round + 1, attempt=1, is_repeat=False, extended_s=0.0)
        return open_attempt(afresh(state), event.at, cells)
    if missed or state.joined != state.plan.invited:
        return end(state, "PARTIAL", "sites-missing", cells)
    return end(state, "COMPLETE", "", cells)
