"""What a person who watches a study sees: its status, one event a change. Pure; JSON-ready."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from larrey_protocol.study import Study
from larrey_server.round_cells import asked_next, is_too_slow, members
from larrey_server.round_clock import due, is_outside
from larrey_server.round_opening import QUORUM_STOPS, missing
from larrey_server.round_values import Cell, Metrics, State
from larrey_server.rounds import deadline

__all__ = ["changes", "describe"]

_Facts = dict[str, Any]  # Any: JSON


def describe(
    study: Study,
    state: State,
    *,
    at: float,
    checking: Collection[str],
    epsilon: Mapping[str, float],
    wall: float = 0.0,
) -> _Facts:
    """Return a study's status.

    Times that a person reads, when a site's answer is due (``due_at``) and when its training window
    opens (``opens_at``), are in seconds since 1970, null where there is none; ``wall`` is now, and
    ``at`` the same on the clock of the rules. ``next_attempt_at`` says until when a study waits
    after ``refusals``, the codes by site that made an attempt fall below quorum. ``missing`` says
    whom a study that gathers, or that paused for want of quorum, is waiting for, and ``next_step``
    what a person can do about it.

    Epsilon is per site and patient, add/remove neighbours, at the study's delta, by PLD, as the
    site's last receipt said; null where none came yet or there is no differential privacy.
    """
    is_open = state.status == "open"
    has_paused_itself = state.status == "paused" and state.stop_code in QUORUM_STOPS
    waits = state.status == "gathering" or has_paused_itself
    pauses = state.status == "gathering" and state.opens_not_before > at
    return {
        "name": study.name,
        "digest": study.digest,
        "title": study.file.study.title,
        "state": state.status,
        "round": state.round,
        "rounds": state.plan.rounds,
        "attempt": state.attempt,
        "phase": state.plan.phases[state.phase],
        "applied": state.applied,
        "metrics": _plain(state.metrics),
        "spares_left": state.spares_left,
        "quorum": state.plan.quorum,
        "required": list(state.plan.required),
        "present": len(set(members(state)) - {one.site for one in missing(state, at)}),
        "missing": _missing(state, at, wall) if waits else [],
        "next_step": f"larrey study retry {study.name}" if has_paused_itself else "",
        "next_attempt_at": round(wall + state.opens_not_before - at, 3) if pauses else None,
        "refusals": dict(state.refusals) if pauses else {},
        "deadline_s": max(0.0, round(deadline(state) - at, 3)) if is_open else None,
        "sites": [
            {
                "site": site,
                **_site(state, site, checking, at),
                **_times(state, site, at, wall),
                "declined_under": state.declined_under.get(site) if site in state.stopped else None,
                "epsilon": epsilon.get(site) if epsilon.get(site, -1.0) >= 0 else None,
            }
            for site in state.plan.invited
        ],
        "stop": state.stop,
        "stop_by": state.stop_by,
        "stop_code": state.stop_code,
        "stop_on": state.stop_on or None,
        "model": state.model,
        "outcome": state.outcome,
        "reason": state.reason,
    }


def _missing(state: State, at: float, wall: float) -> list[_Facts]:
    return [
        {
            "site": one.site,
            "why": one.why,
            "code": state.stopped.get(one.site, ""),
            "reason": state.excluded.get(one.site, ""),
            "until": wall + one.until - at if one.until else None,
        }
        for one in missing(state, at)
    ]


def _site(  # noqa: C901, PLR0911 - one return a state
    state: State, site: str, checking: Collection[str], at: float
) -> _Facts:
    """Return what a site does, with a code or a person's reason where there is one.

    States: invited, not-joined, declined, excluded, checking, refused, answered, away, waiting (for
    its training window), left-out (too slow for any round), working, idle.
    """
    if site in state.stopped:
        return {"state": "declined", "code": state.stopped[site]}
    if site in state.excluded:
        return {"state": "excluded", "code": "", "reason": state.excluded[site]}
    if site not in state.joined:
        return {"state": "not-joined" if state.joined else "invited", "code": ""}
    if site in checking:
        return {"state": "checking", "code": ""}
    reply = next((r for r in reversed(state.replies) if r.site == site), None)
    if reply is not None and site not in state.pending:
        return {"state": "refused" if reply.code else "answered", "code": reply.code}
    if site in state.away:
        return {"state": "away", "code": ""}
    if is_outside(state, site, at):
        return {"state": "waiting", "code": ""}
    if is_too_slow(state, site) and site not in state.pending:
        return {"state": "left-out", "code": "too-slow"}
    return {"state": "working" if site in state.pending else "idle", "code": ""}


def _times(state: State, site: str, at: float, wall: float) -> _Facts:
    """Return when a site's answer is due and when its window opens, in seconds since 1970."""
    until = due(state, site) if site in state.pending else None
    opens = state.windows.get(site, 0.0)
    return {
        "due_at": None if until is None else round(wall + until - at, 3),
        "opens_at": round(wall + opens - at, 3) if opens > at else None,
    }


def changes(before: State, after: State, cells: tuple[Cell, ...]) -> list[_Facts]:
    """Return what happened between two states, in order; ``cells`` are of the attempt that ended.

    Events: ``site-connected``, ``site-disconnected``, ``site-window``, ``site-answered`` (with its
    code), ``round-closed``, ``round-applied`` or ``round-not-applied`` (with a code),
    ``site-joined``, ``site-stopped``, ``site-excluded``, ``site-included``, ``round-extended``,
    ``site-overdue`` (a round lasted as long as it may, and not long enough for the site),
    ``pause-ordered``, ``halt-ordered`` or ``resume-ordered``, ``study-paused`` when a pause takes
    effect or the study pauses itself, after the round that led to it, ``launched``,
    ``round-gathering``, ``round-opened``, ``study-ended``.
    """
    return [
        *_connections(before, after),
        *_answers(before, after),
        *_members(before, after),
        *_overdue(before, after),
        *_stops(before, after),
        *_ended_attempt(before, after, cells),
        *_paused(before, after),
        *_opened(before, after),
    ]


def _connections(before: State, after: State) -> list[_Facts]:
    if not before.joined:
        return []
    known = [site for site in before.joined if site not in before.stopped]
    gone = [site for site in after.away if site in known and site not in before.away]
    come = [site for site in before.away if site not in after.away]
    return [
        *({"event": "site-disconnected", "site": site} for site in gone),
        *({"event": "site-connected", "site": site} for site in come),
        *(
            {"event": "site-window", "site": site, "is_open": site not in after.windows}
            for site in sorted({*before.windows, *after.windows})
            if (site in before.windows) != (site in after.windows)
        ),
    ]


def _answers(before: State, after: State) -> list[_Facts]:
    known = {(reply.site, reply.phase) for reply in before.replies}
    same_attempt = (before.round, before.attempt) == (after.round, after.attempt)
    fresh = [r for r in after.replies if not same_attempt or (r.site, r.phase) not in known]
    events = [
        {"event": "site-answered", "site": r.site, "round": after.round, "code": r.code}
        for r in fresh
    ]
    if before.status == "open" and after.status == "closing":
        events.append({"event": "round-closed", "round": after.round})
    return events


def _members(before: State, after: State) -> list[_Facts]:
    """Return who came, went or was left out; a site's own refusal is an answer already."""
    told = {reply.site for reply in after.replies if reply.code}
    gone = [site for site in after.stopped if site not in before.stopped and site not in told]
    come = [
        site
        for site in after.joined
        if site not in before.joined or (site in before.stopped and site not in after.stopped)
    ]
    out = [site for site in after.excluded if site not in before.excluded]
    is_ordered = after.order > before.order
    back = [
        site
        for site in after.plan.invited
        if (site in before.excluded and site not in after.excluded)
        or (is_ordered and site in before.stopped and site in come)
        or (is_ordered and is_too_slow(before, site) and not is_too_slow(after, site))
    ]
    come = [site for site in come if site not in back]
    more = after.extended_s - before.extended_s
    return [
        *({"event": "site-joined", "site": site} for site in come if before.status != "waiting"),
        *({"event": "site-stopped", "site": site, "code": after.stopped[site]} for site in gone),
        *({"event": "site-excluded", "site": site, "reason": after.excluded[site]} for site in out),
        *({"event": "site-included", "site": site} for site in back),
        *([{"event": "round-extended", "seconds": more}] if more > 0 else []),
    ]


def _overdue(before: State, after: State) -> list[_Facts]:
    """Return whose training was paid for and not used; a repeated round may use it still."""
    return [
        {"event": "site-overdue", "site": site, "asked_next": asked_next(after, site)}
        for site, count in after.overdue.items()
        if before.overdue.get(site, 0) < count and after.attempt == before.attempt
    ]


def _stops(before: State, after: State) -> list[_Facts]:
    """Return what persons ordered."""
    by, code, was, now = after.stop_by, after.stop_code, before.stop, after.stop
    if after.status == "ended" or (now, by) == (was, before.stop_by) or code in QUORUM_STOPS:
        return []
    return [{"event": f"{now or 'resume'}-ordered", "by": by, "code": code}]


def _paused(before: State, after: State) -> list[_Facts]:
    """Return that a pause has begun, a person's or the study's own, after what led to it."""
    code = after.stop_code
    if after.status != "paused" or (before.status, before.stop_code) == ("paused", code):
        return []
    return [{"event": "study-paused", "by": after.stop_by, "code": code}]


def _ended_attempt(before: State, after: State, cells: tuple[Cell, ...]) -> list[_Facts]:
    if not cells:
        return []
    applied = after.applied > before.applied
    kind = "round-applied" if applied else "round-not-applied"
    outcomes = {
        cell.site: {"outcome": cell.outcome, "code": cell.code, "seconds": cell.seconds}
        for cell in cells
    }
    facts = {"round": cells[0].round, "attempt": cells[0].attempt, "sites": outcomes}
    codes = {cell.code for cell in cells}
    why = "retried" if "round-retried" in codes else "below-quorum"
    facts["code"] = "" if applied else "halted" if "study-halted" in codes else why
    model, metrics = (after.model, after.metrics) if applied else ("", {})
    return [{"event": kind, **facts, "model": model, "metrics": _plain(metrics)}]


def _plain(metrics: Metrics) -> _Facts:
    return {phase: dict(values) for phase, values in metrics.items()}


def _opened(before: State, after: State) -> list[_Facts]:
    if after.status == "ended" and before.status != "ended":
        return [{"event": "study-ended", "outcome": after.outcome, "reason": after.reason}]
    facts: list[_Facts] = [{"event": "launched"}] if before.status == "waiting" else []
    here, there = _place(before), _place(after)
    if after.status not in {"gathering", "open"} or here == there:
        return facts
    verb = "opened" if after.status == "open" else "gathering"
    return [*facts, {"event": f"round-{verb}", "round": after.round, "attempt": after.attempt}]


def _place(state: State) -> tuple[str, int, int]:
    """Return which attempt a state is at; a closing one is open still."""
    status = "open" if state.status == "closing" else state.status
    return status, state.round, state.attempt
