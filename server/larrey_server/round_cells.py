"""What sites did in the open attempt of a round, read from a study's state. Pure."""

from __future__ import annotations

from dataclasses import replace

from larrey_protocol.refusals import STANDING_REFUSALS
from larrey_server.round_values import Cell, Outcome, Reply, State

__all__ = [
    "MAY_RETURN",
    "OUTSIDE",
    "abandoned",
    "answered",
    "asked_next",
    "cells_of",
    "has_quorum",
    "is_hopeless",
    "is_too_slow",
    "members",
    "refusals",
    "unapplied",
    "updates",
]

OUTSIDE = "outside-window"  # the code of a site that was asked at the wrong hour
MAY_RETURN = STANDING_REFUSALS - {"approval-revoked"}  # a person may ask again after these
_TOO_OFTEN = 2  # rounds in a row of which a site used up all the time


def members(state: State) -> tuple[str, ...]:
    """Return the sites that a new attempt asks, in roster order."""
    out = {*state.stopped, *state.excluded}
    return tuple(site for site in state.joined if site not in out)


def answered(state: State) -> tuple[str, ...]:
    """Return the sites that answered the present phase without a code, in roster order."""
    phase = state.plan.phases[state.phase]
    good = {reply.site for reply in state.replies if reply.phase == phase and not reply.code}
    return tuple(site for site in state.joined if site in good)


def is_hopeless(state: State) -> bool:
    """Return whether so many sites went for good or were excluded that a phase lacks its quorum.

    Whoever answered it in whatever way might do better, so that only time tells.
    """
    phase = state.plan.phases[state.phase]
    asked = {*state.pending, *(reply.site for reply in state.replies if reply.phase == phase)}
    return not has_quorum(state, tuple(site for site in members(state) if site in asked))


def refusals(state: State) -> dict[str, str]:
    """Return the codes of the present phase where everybody answered it, else nothing."""
    phase = state.plan.phases[state.phase]
    if state.pending:
        return {}
    return {
        reply.site: reply.code for reply in state.replies if reply.phase == phase and reply.code
    }


def is_too_slow(state: State, site: str) -> bool:
    """Return whether a site would train for nothing: no round lasts as long as it takes."""
    return state.round < asked_next(state, site)


def asked_next(state: State, site: str) -> int:
    """Return the round that asks a site again which used up whole rounds, 0 where each one does.

    It is left out of one round, then of two, of four and so on: what it pays in vain grows with
    the logarithm of the rounds, and a site that is well again comes back though nobody told.
    """
    count = state.overdue.get(site, 0)
    if count < _TOO_OFTEN or site not in state.last_asked:
        return 0
    return state.last_asked[site][0] + 1 + (1 << min(count - _TOO_OFTEN, 30))


def has_quorum(state: State, sites: tuple[str, ...]) -> bool:
    """Return whether a round may be made by these sites alone."""
    return len(sites) >= state.plan.quorum and set(state.plan.required) <= set(sites)


def updates(state: State) -> tuple[tuple[str, str], ...]:
    """Return what each contributor answered to the first phase, in roster order."""
    first = _firsts(state)
    return tuple((site, first[site].update) for site in answered(state) if site in first)


def _firsts(state: State) -> dict[str, Reply]:
    """Return the good replies to the first phase."""
    phase = state.plan.phases[0]
    return {reply.site: reply for reply in state.replies if reply.phase == phase and reply.update}


def unapplied(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Return the cells of an attempt whose contributions were not used."""
    return tuple(
        replace(cell, code="round-not-applied") if cell.outcome == "contributed" else cell
        for cell in cells
    )


def abandoned(state: State, at: float, code: str) -> tuple[Cell, ...]:
    """Return the cells of an attempt that an order ended: who still worked did not fail."""
    if state.status not in {"open", "closing"}:
        return ()
    return tuple(
        replace(cell, outcome="halted" if cell.outcome == "late" else cell.outcome, code=code)
        if cell.outcome in {"contributed", "late", "absent"}
        else cell
        for cell in state.cells or cells_of(state, at)
    )


def cells_of(state: State, at: float) -> tuple[Cell, ...]:
    """Return what each joined site did in the present attempt."""
    good = set(answered(state))
    told = {reply.site: reply for reply in state.replies}
    told |= {site: reply for site, reply in _firsts(state).items() if site in good}
    return tuple(_cell(state, at, site, told.get(site), site in good) for site in state.joined)


def _cell(state: State, at: float, site: str, reply: Reply | None, is_good: bool) -> Cell:
    blank = Cell(site, state.round, state.attempt, "absent")
    if reply is not None and is_good:
        return replace(
            blank,
            outcome="contributed",
            epsilon=reply.epsilon,
            nbytes=reply.nbytes,
            update=reply.update,
            seconds=round(reply.work_s + reply.transfer_s, 3),
        )
    outcome, code = _why_not(state, at, site, reply.code if reply is not None else "")
    return replace(blank, outcome=outcome, code=code)


def _why_not(state: State, at: float, site: str, told: str) -> tuple[Outcome, str]:  # noqa: PLR0911 - one return a reason
    """Return why a site did not contribute, with a code where one is needed."""
    if site in state.stopped:
        return "refused", state.stopped[site]
    if site in state.excluded:
        return "excluded", "excluded-by-order"
    if told:
        return ("waiting" if told == OUTSIDE else "refused"), told
    if site in state.away:
        return "absent", ""
    if site in state.asked:
        return "late", ""
    if state.windows.get(site, 0.0) > at:
        return "waiting", OUTSIDE
    if is_too_slow(state, site):
        return "absent", "too-slow"
    return "absent", "not-asked"  # it came when the attempt was under way
