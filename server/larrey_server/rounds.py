"""The rules of rounds: who is asked, when a round closes, what counts, when a study ends.

Pure: ``advance(state, event)`` gives the next state and what to do; it reads no clock and touches
nothing. `larrey_server.study_run` carries the actions out, the commit first, announcements after.

    waiting ── Launched ──▶ open ── all answered, or deadline ──▶ closing ── Aggregated ──▶ open …
                             │ below quorum: a spare attempt of the same round         └──▶ ended
                             └── no spare left ──▶ ended (FAILED)

    open, closing ── pause ──▶ the round is finished ──▶ paused ── resume ──▶ open, the next round
    open, closing ── halt ──▶ halted, the attempt abandoned ── resume ──▶ open, a further attempt

Phases of a round are data: each asks the sites that answered the one before; the aggregate is of
what the first one brought. An attempt repeats a round with the same model, so that a site that has
trained already sends the answer it stored; hence an answer to an earlier attempt of the same round
counts. A restart begins the open round again with its first phase: its receipts and the claims on
its updates are not in the journal, the sites have both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from larrey_protocol.refusals import STANDING_REFUSALS
from larrey_server.round_cells import answered, cells_of, halted, unapplied, updates
from larrey_server.round_values import (
    Action,
    Aggregate,
    Aggregated,
    Cancel,
    Cell,
    Commit,
    Courier,
    Event,
    Launched,
    Ordered,
    Plan,
    Replied,
    Resumed,
    Send,
    SiteDown,
    SiteStopped,
    SiteUp,
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
]

_Step = tuple[State, tuple[Action, ...]]


def begin(plan: Plan, model: str) -> State:
    """Return the state before launch; ``model`` is the digest of the starting point."""
    return State(plan, model, spares_left=plan.spare_rounds)


def advance(state: State, event: Event) -> _Step:  # noqa: C901, PLR0911 - one case an event
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
        case Replied():
            return _replied(state, event)
        case Ticked():
            return _settle(state, event.at)
        case Aggregated():
            return _aggregated(state, event)
        case Ordered():
            return _ordered(state, event)
        case SiteStopped():
            return _site_stopped(state, event)
        case _:
            return state, ()


def deadline(state: State) -> float:
    """Return when the present phase closes at the latest."""
    share = (state.phase + 1) / len(state.plan.phases)
    return state.opened_at + state.plan.deadline_s * share


def next_wake(state: State, at: float) -> float | None:
    """Return when `Ticked` is due next, None while only other events matter."""
    if state.status != "open":
        return None
    graces = [until for site, until in state.away.items() if site in state.pending and until > at]
    return min([deadline(state), *graces])


def task_key(state: State) -> TaskKey:
    """Return the key of the requests of the present phase."""
    plan = state.plan
    return TaskKey(plan.study, state.round, plan.phases[state.phase], state.attempt, state.model)


def expects(state: State, site: str, key: TaskKey, code: str) -> bool:
    """Return whether this answer is still owed; a refusal is to its own attempt only."""
    if state.status != "open" or site not in state.pending:
        return False
    present = task_key(state)
    if code:
        return key == present
    return key.attempt <= present.attempt and replace(key, attempt=present.attempt) == present


def _launched(state: State, event: Launched) -> _Step:
    if state.status != "waiting":
        return state, ()
    joined = tuple(site for site in state.plan.invited if site in event.sites)
    away = dict.fromkeys(joined, event.at + state.plan.arrival_s)
    state = replace(state, joined=joined, away=away, order=event.number)
    return _open(replace(state, round=1, attempt=1), event.at, ())


def _resumed(state: State, event: Resumed) -> _Step:
    """Give the round its time again; the same requests go to the sites as they come."""
    away = dict.fromkeys(state.joined, event.at + state.plan.arrival_s)
    state = replace(state, away=away, opened_at=event.at)
    if state.status in {"open", "closing"}:
        state = replace(state, status="open", phase=0, pending=_asked(state), replies=(), cells=())
    return state, ()


def _ordered(state: State, event: Ordered) -> _Step:  # noqa: PLR0911 - one return a verb
    """Pause after the open round, halt at once, go on, or end."""
    is_running = state.status in {"open", "closing"}
    now = replace(
        state, order=max(state.order, event.number),
        stop_by=event.by, stop_on=event.on, stop_code=event.code,
    )  # fmt: skip
    if state.status == "ended" or (state.status == "waiting" and event.verb != "close"):
        return state, ()
    match event.verb:
        case "pause" if not state.stop:
            return replace(now, stop="pause"), (Commit(),)
        case "halt" if is_running:
            return _abandon(replace(now, stop="halt"))
        case "halt" if state.status == "paused":
            return replace(now, stop="halt", status="halted"), (Commit(),)
        case "resume" if state.stop:
            now = replace(now, stop="", stop_by="", stop_on=0.0, stop_code="")
            return (now, (Commit(),)) if is_running else _open(now, event.at, ())
        case "close":
            cells = halted(cells_of(state)) if is_running else ()
            outcome: Literal["PARTIAL", "FAILED"] = "PARTIAL" if state.applied else "FAILED"
            return _end(now, outcome, "closed-by-order", cells)
        case _:
            return state, ()


def _abandon(state: State) -> _Step:
    """End the attempt unapplied; the next one has the same round and model and is no spare."""
    cancels = [Cancel(site, task_key(state)) for site in state.pending]
    cells = halted(cells_of(state))
    state = replace(
        state, status="halted", attempt=state.attempt + 1,
        phase=0, pending=(), replies=(), cells=(),
    )  # fmt: skip
    return state, (Commit(cells), *cancels)


def _site_stopped(state: State, event: SiteStopped) -> _Step:
    """Address a site no more; what it brought to an open attempt does not count."""
    site = event.site
    if state.status in {"waiting", "ended"} or site not in state.joined or site in state.stopped:
        return state, ()
    cancels = (Cancel(site, task_key(state)),) if site in state.pending else ()
    state = replace(
        state,
        order=max(state.order, event.number),
        stopped={**state.stopped, site: event.code},
        pending=tuple(name for name in state.pending if name != site),
    )
    if state.status == "open":
        state = replace(state, replies=tuple(r for r in state.replies if r.site != site))
    state, actions = _settle(state, event.at)
    if actions[:1] and isinstance(actions[0], Commit):
        return state, (actions[0], *cancels, *actions[1:])
    return state, (Commit(), *cancels, *actions)


def _site_up(state: State, event: SiteUp) -> _Step:
    if event.site not in state.away:
        return state, ()
    away = {site: until for site, until in state.away.items() if site != event.site}
    asked = state.status == "open" and event.site in state.pending
    return replace(state, away=away), (Send(event.site),) if asked else ()


def _site_down(state: State, event: SiteDown) -> _Step:
    if event.site in state.away or event.site not in state.joined:
        return state, ()
    away = {**state.away, event.site: event.at + state.plan.grace_s}
    return _settle(replace(state, away=away), event.at)


def _replied(state: State, event: Replied) -> _Step:
    reply = event.reply
    if not expects(state, reply.site, event.key, reply.code):
        return state, ()
    stopped = state.stopped
    if reply.code in STANDING_REFUSALS:
        stopped = {**stopped, reply.site: reply.code}
    pending = tuple(site for site in state.pending if site != reply.site)
    replies = (*state.replies, reply)
    return _settle(replace(state, pending=pending, replies=replies, stopped=stopped), event.at)


def _settle(state: State, at: float) -> _Step:
    """Close the phase if nothing more is to be waited for."""
    if state.status != "open":
        return state, ()
    enough = len(answered(state)) >= state.plan.quorum
    awaited = [site for site in state.pending if state.away.get(site, at + 1) > at]
    if at < deadline(state) and (awaited or (state.pending and not enough)):
        return state, ()
    cancels = tuple(Cancel(site, task_key(state)) for site in state.pending)
    if not enough:
        state, actions = _repeat(state, at)
    elif state.phase + 1 < len(state.plan.phases):
        state, actions = _next_phase(state)
    else:
        state = replace(state, status="closing", pending=(), cells=cells_of(state))
        actions = (Aggregate(updates(state)),)
    commit, rest = actions[:1], actions[1:]
    return state, (*commit, *cancels, *rest)  # before the same sites are asked anew


def _next_phase(state: State) -> _Step:
    pending = answered(state)
    state = replace(state, phase=state.phase + 1, pending=pending)
    return state, (Commit(), *_sends(state))


def _repeat(state: State, at: float) -> _Step:
    """Spend a spare attempt on the same round, or end the study."""
    cells = unapplied(cells_of(state))
    if state.spares_left == 0:
        return _end(state, "FAILED", "below-quorum", cells)
    again = replace(state, spares_left=state.spares_left - 1, attempt=state.attempt + 1)
    return _open(again, at, cells)


def _open(state: State, at: float, cells: tuple[Cell, ...]) -> _Step:
    """Open the attempt that ``state`` names; ``cells`` are of the attempt before."""
    pending = _asked(state)
    if len(pending) < state.plan.quorum:
        return _end(state, "FAILED", "too-few-sites", cells)
    if state.stop:
        return replace(state, status="paused", phase=0, pending=(), replies=(), cells=()), (
            Commit(cells),
        )
    state = replace(
        state, status="open", phase=0, opened_at=at, pending=pending, replies=(), cells=()
    )
    return state, (Commit(cells), *_sends(state))


def _asked(state: State) -> tuple[str, ...]:
    """Return the sites that a new attempt asks, in roster order."""
    return tuple(site for site in state.joined if site not in state.stopped)


def _sends(state: State) -> tuple[Send, ...]:
    return tuple(Send(site) for site in state.pending if site not in state.away)


def _aggregated(state: State, event: Aggregated) -> _Step:
    if state.status != "closing":
        return state, ()
    cells = state.cells
    if event.code:
        return _end(state, "FAILED", event.code, unapplied(cells))
    absent = {cell.site for cell in cells if cell.outcome != "contributed"} | set(state.missed)
    missed = tuple(site for site in state.joined if site in absent)
    state = replace(
        state, model=event.model, applied=state.round, missed=missed, metrics=event.metrics
    )
    if state.round < state.plan.rounds:
        return _open(replace(state, round=state.round + 1, attempt=1), event.at, cells)
    if missed or state.joined != state.plan.invited:
        return _end(state, "PARTIAL", "sites-missing", cells)
    return _end(state, "COMPLETE", "", cells)


def _end(
    state: State,
    outcome: Literal["COMPLETE", "PARTIAL", "FAILED"],
    reason: str,
    cells: tuple[Cell, ...],
) -> _Step:
    state = replace(
        state, status="ended", outcome=outcome, reason=reason, pending=(), replies=(), cells=(),
        stop="", stop_by="", stop_on=0.0, stop_code="",
    )  # fmt: skip
    return state, (Commit(cells),)
