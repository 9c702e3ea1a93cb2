"""What people order about a running study, and sites that come late or go for good. Pure.

    open, closing ── pause ──▶ the round is finished ──▶ paused ── resume ──▶ the next round
    open, closing ── halt ──▶ halted, the attempt abandoned ── resume ──▶ a further attempt
    open, closing ── retry ──▶ a further attempt at once; also out of a pause for want of quorum
    gathering after refusals ── retry ──▶ the next attempt at once

None of them costs a spare attempt. Orders on call (exclude, include, extend, retry) are noted with
their number even where they change nothing, so that a restart does not give them again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from larrey_server.round_cells import MAY_RETURN, abandoned, is_hopeless, is_too_slow, members
from larrey_server.round_clock import forgiven
from larrey_server.round_closing import cancels, settle
from larrey_server.round_keys import task_key
from larrey_server.round_opening import (
    QUORUM_STOPS,
    Step,
    afresh,
    durable,
    end,
    next_attempt,
    open_attempt,
)
from larrey_server.round_values import (
    Action,
    Cancel,
    Commit,
    Ordered,
    SiteJoined,
    SiteStopped,
    State,
)

__all__ = ["ordered", "site_joined", "site_stopped"]

_LONGEST_S = 7 * 86400.0  # as `larrey_protocol.study.Rounds.deadline_s`


def ordered(state: State, event: Ordered) -> Step:
    """Carry out an order; one that does not fit the state stops and resumes nothing."""
    if state.status == "ended" or (state.status == "waiting" and event.verb != "close"):
        return state, ()
    match event.verb:
        case "exclude" | "include" | "extend" | "retry":
            number = max(state.order, event.number)
            return durable(_on_call(replace(state, order=number), event))
        case _:
            return _stop(state, event)


def site_stopped(state: State, event: SiteStopped) -> Step:
    """Address a site no more; what it brought to an open attempt does not count."""
    site = event.site
    if state.status in {"waiting", "ended"} or site not in state.joined or site in state.stopped:
        return state, ()
    stopped = {**state.stopped, site: event.code}
    state = replace(state, order=max(state.order, event.number), stopped=stopped)
    return durable(_without(state, site, event.at))


def site_joined(state: State, event: SiteJoined) -> Step:
    """Take in an invited site that approved after the launch, from the next opening on.

    Also one that was stopped and may take part again; the caller knows who may.
    """
    site, plan = event.site, state.plan
    is_known = site in state.joined and site not in state.stopped
    if state.status in {"waiting", "ended"} or is_known or site not in plan.invited:
        return state, ()
    joined = tuple(name for name in plan.invited if name in {*state.joined, site})
    stopped = {name: code for name, code in state.stopped.items() if name != site}
    missed = tuple(s for s in joined if s in state.missed or (s == site and state.applied))
    away = {**state.away, site: event.at + plan.grace_s}
    state = replace(state, joined=joined, stopped=stopped, missed=missed, away=away)
    return state, (Commit(),)


def _stop(state: State, event: Ordered) -> Step:
    """Pause after the open round, halt at once, go on, or end."""
    is_running = state.status in {"open", "closing"}
    is_own = state.stop_code in QUORUM_STOPS
    now = replace(
        state, order=max(state.order, event.number),
        stop_by=event.by, stop_on=event.on, stop_code=event.code,
    )  # fmt: skip
    match event.verb:
        case "pause" if not state.stop or is_own:
            status = state.status if is_running else "paused"
            return replace(now, stop="pause", status=status), (Commit(),)
        case "halt" if is_running:
            return _halted(replace(now, stop="halt"), event.at)
        case "halt" if state.status in {"paused", "gathering"}:
            return replace(now, stop="halt", status="halted"), (Commit(),)
        case "resume" if state.stop and not 0 < event.number < state.order:  # else overtaken
            now = replace(now, stop="", stop_by="", stop_on=0.0, stop_code="")
            return (now, (Commit(),)) if is_running else open_attempt(afresh(now), event.at)
        case "close":
            outcome: Literal["PARTIAL", "FAILED"] = "PARTIAL" if state.applied else "FAILED"
            cells = abandoned(state, event.at, "study-halted")
            return end(now, outcome, "closed-by-order", cells)
        case _:
            return state, ()


def _halted(state: State, at: float) -> Step:
    """End the attempt unapplied; the next one has the same round and model and is no spare."""
    cells, taken_back = abandoned(state, at, "study-halted"), cancels(state)
    state = replace(
        next_attempt(state),
        status="halted", phase=0, pending=(), replies=(), cells=(), asked={},
    )  # fmt: skip
    return state, (Commit(cells), *taken_back)


def _on_call(state: State, event: Ordered) -> Step:
    site, at = event.subject, event.at
    match event.verb:
        case "exclude" if site in state.plan.invited and site not in state.excluded:
            return _excluded(state, event)
        case "include":
            return _included(state, site, at)
        case "extend" if state.status in {"gathering", "open"}:
            extended = min(state.extended_s + _seconds(event.subject), _LONGEST_S)
            pending = _with_the_slow(state)
            state = replace(state, extended_s=extended, overdue={}, last_asked={}, pending=pending)
            return settle(state, at)
        case "retry":
            return _again(state, at)
        case _:
            return state, ()


def _excluded(state: State, event: Ordered) -> Step:
    """Leave a site out; an attempt that cannot have its quorum without it is repeated at once."""
    site, at = event.subject, event.at
    state = replace(state, excluded={**state.excluded, site: event.reason})
    if state.status == "open" and is_hopeless(state):
        others = tuple(reply for reply in state.replies if reply.site != site)
        return _repeated(replace(state, replies=others), at, "round-not-applied")
    return _without(state, site, at)


def _included(state: State, site: str, at: float) -> Step:
    """Let a site take part again from the next opening on, unless it or the consortium went."""
    excluded = {name: why for name, why in state.excluded.items() if name != site}
    stopped = {
        name: code for name, code in state.stopped.items() if name != site or code not in MAY_RETURN
    }
    state = forgiven(state, site) if is_too_slow(state, site) else state
    return settle(replace(state, excluded=excluded, stopped=stopped), at)


def _with_the_slow(state: State) -> tuple[str, ...]:
    """Return who owes an answer where the open attempt has more time, in roster order."""
    if state.status != "open" or state.phase > 0:
        return state.pending
    told = {reply.site for reply in state.replies}
    slow = {site for site in members(state) if is_too_slow(state, site) and site not in told}
    return tuple(site for site in state.joined if site in {*state.pending, *slow})


def _again(state: State, at: float) -> Step:
    """Repeat the open attempt, or open one more where the study paused for want of quorum."""
    if state.status in {"open", "closing"}:
        return _repeated(state, at, "round-retried")
    if state.status == "paused" and state.stop_code in QUORUM_STOPS:
        state = replace(state, stop="", stop_by="", stop_on=0.0, stop_code="")
        return open_attempt(afresh(state), at)
    if state.status == "gathering" and at < state.opens_not_before:
        return open_attempt(afresh(state), at)
    return state, ()


def _repeated(state: State, at: float, code: str) -> Step:
    """Open a further attempt of the same round, or gather for it; it is no spare one."""
    cells, taken_back = abandoned(state, at, code), cancels(state)
    state, actions = open_attempt(next_attempt(afresh(state)), at, cells)
    return state, (*actions[:1], *taken_back, *actions[1:])


def _without(state: State, site: str, at: float) -> Step:
    """Wait for a site no more, nor count what it brought to the open attempt."""
    is_asked = site in state.pending and site in state.asked
    taken_back: tuple[Action, ...] = (Cancel(site, task_key(state)),) if is_asked else ()
    pending = tuple(name for name in state.pending if name != site)
    state = replace(state, pending=pending)
    if state.status == "open":
        state = replace(state, replies=tuple(r for r in state.replies if r.site != site))
    state, actions = durable(settle(state, at))
    return state, (actions[0], *taken_back, *actions[1:])


def _seconds(text: str) -> float:
    """Return the seconds that an order names, 0 where it names none."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
