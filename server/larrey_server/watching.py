"""What a person who watches a study sees: its status, one event a change. Pure; JSON-ready."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from larrey_protocol.study import Study
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
) -> _Facts:
    """Return a study's status.

    Epsilon is per site and patient, add/remove neighbours, at the study's delta, by PLD, as the
    site's last receipt said; null where none came yet or there is no differential privacy.
    """
    is_open = state.status == "open"
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
        "deadline_s": max(0.0, round(deadline(state) - at, 3)) if is_open else None,
        "sites": [
            {
                "site": site,
                **_site(state, site, checking),
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


def _site(state: State, site: str, checking: Collection[str]) -> _Facts:
    """Return a site's part: not-joined, declined, away, working, checking, refused, answered."""
    if site not in state.joined:
        return {"state": "not-joined" if state.joined else "invited", "code": ""}
    if site in state.stopped:
        return {"state": "declined", "code": state.stopped[site]}
    if site in checking:
        return {"state": "checking", "code": ""}
    reply = next((r for r in reversed(state.replies) if r.site == site), None)
    if reply is not None and site not in state.pending:
        return {"state": "refused" if reply.code else "answered", "code": reply.code}
    if site in state.away:
        return {"state": "away", "code": ""}
    return {"state": "working" if site in state.pending else "idle", "code": ""}


def changes(before: State, after: State, cells: tuple[Cell, ...]) -> list[_Facts]:
    """Return what happened between two states, in order; ``cells`` are of the attempt that ended.

    Events: ``site-connected``, ``site-disconnected``, ``site-answered`` (with its code),
    ``round-closed``, ``round-applied`` or ``round-not-applied``, ``site-stopped``,
    ``pause-ordered``, ``halt-ordered`` or ``resume-ordered``, ``launched``, ``round-opened``,
    ``study-ended``.
    """
    return [
        *_connections(before, after),
        *_answers(before, after),
        *_stops(before, after),
        *_ended_attempt(before, after, cells),
        *_opened(before, after),
    ]


def _connections(before: State, after: State) -> list[_Facts]:
    if not before.joined:
        return []
    gone = [site for site in after.away if site not in before.away]
    come = [site for site in before.away if site not in after.away]
    return [
        *({"event": "site-disconnected", "site": site} for site in gone),
        *({"event": "site-connected", "site": site} for site in come),
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


def _stops(before: State, after: State) -> list[_Facts]:
    """Return what orders changed, a site's own refusal being an answer already."""
    told = {reply.site for reply in after.replies if reply.code}
    gone = [site for site in after.stopped if site not in before.stopped and site not in told]
    facts: list[_Facts] = [
        {"event": "site-stopped", "site": site, "code": after.stopped[site]} for site in gone
    ]
    if after.status != "ended" and after.stop != before.stop:
        verb = after.stop or "resume"
        facts.append({"event": f"{verb}-ordered", "by": after.stop_by, "code": after.stop_code})
    return facts


def _ended_attempt(before: State, after: State, cells: tuple[Cell, ...]) -> list[_Facts]:
    if not cells:
        return []
    applied = after.applied > before.applied
    kind = "round-applied" if applied else "round-not-applied"
    outcomes = {cell.site: {"outcome": cell.outcome, "code": cell.code} for cell in cells}
    facts = {"round": cells[0].round, "attempt": cells[0].attempt, "sites": outcomes}
    model, metrics = (after.model, after.metrics) if applied else ("", {})
    return [{"event": kind, **facts, "model": model, "metrics": _plain(metrics)}]


def _plain(metrics: Metrics) -> _Facts:
    return {phase: dict(values) for phase, values in metrics.items()}


def _opened(before: State, after: State) -> list[_Facts]:
    if after.status == "ended" and before.status != "ended":
        return [{"event": "study-ended", "outcome": after.outcome, "reason": after.reason}]
    here, there = (before.round, before.attempt), (after.round, after.attempt)
    was_open = before.status in {"open", "closing"}
    if after.status != "open" or (was_open and here == there):
        return []
    opened = {"event": "round-opened", "round": after.round, "attempt": after.attempt}
    return [opened] if before.status != "waiting" else [{"event": "launched"}, opened]
