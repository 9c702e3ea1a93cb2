"""What sites did in the open attempt of a round, read from a study's state. Pure."""

from __future__ import annotations

from dataclasses import replace

from larrey_server.round_values import Cell, Outcome, Reply, State

__all__ = ["answered", "cells_of", "halted", "unapplied", "updates"]


def answered(state: State) -> tuple[str, ...]:
    """Return the sites that answered the present phase without a code, in roster order."""
    phase = state.plan.phases[state.phase]
    good = {reply.site for reply in state.replies if reply.phase == phase and not reply.code}
    return tuple(site for site in state.joined if site in good)


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


def halted(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Return the cells of an attempt that an order ended: who still worked did not fail."""
    return tuple(
        cell
        if cell.outcome == "refused"
        else replace(
            cell,
            outcome="contributed" if cell.outcome == "contributed" else "halted",
            code="study-halted",
        )
        for cell in cells
    )


def cells_of(state: State) -> tuple[Cell, ...]:
    """Return what each joined site did in the present attempt."""
    good = set(answered(state))
    told = {reply.site: reply for reply in state.replies}
    told |= {site: reply for site, reply in _firsts(state).items() if site in good}
    return tuple(_cell(state, site, told.get(site), site in good) for site in state.joined)


def _cell(state: State, site: str, reply: Reply | None, is_good: bool) -> Cell:
    if reply is not None and is_good:
        return Cell(
            site,
            state.round,
            state.attempt,
            "contributed",
            epsilon=reply.epsilon,
            nbytes=reply.nbytes,
            update=reply.update,
        )
    code = reply.code if reply is not None else state.stopped.get(site, "")
    if code:
        return Cell(site, state.round, state.attempt, "refused", code)
    outcome: Outcome = "absent" if site in state.away else "late"
    return Cell(site, state.round, state.attempt, outcome)
