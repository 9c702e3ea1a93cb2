"""How a phase of a round closes, and what follows. Pure.

A phase closes when everybody answered or its deadline passed; before that, when quorum and all
required sites answered and none of the others is worth waiting for (`round_clock.is_awaited`), or
when so many went for good or were excluded that quorum cannot be reached any more.
Below quorum the round is repeated with a spare attempt; without one the study pauses itself. Where
everybody answered, the spare attempt waits for a moment, a longer one each time.
"""

from __future__ import annotations

from dataclasses import replace

from larrey_server.round_cells import (
    abandoned,
    answered,
    cells_of,
    has_quorum,
    is_hopeless,
    members,
    refusals,
    unapplied,
    updates,
)
from larrey_server.round_clock import deadline, is_awaited, learned_late
from larrey_server.round_keys import task_key
from larrey_server.round_opening import (
    Step,
    call,
    gather,
    held_back,
    next_attempt,
    open_attempt,
    paused_itself,
)
from larrey_server.round_values import Action, Aggregate, Cancel, Commit, State

__all__ = ["cancels", "settle"]


def settle(state: State, at: float) -> Step:
    """Do what is due: open what gathers, ask who became free, close what waits for nobody."""
    if state.status == "gathering":
        return gather(state, at)
    if state.status != "open":
        return state, ()
    if not _is_over(state, at):
        return call(state, at)
    taken_back = cancels(state)
    state, actions = _closed(learned_late(state, at), at)
    commits = [action for action in actions if isinstance(action, Commit)]
    rest = [action for action in actions if not isinstance(action, Commit)]
    return state, (*commits, *taken_back, *rest)  # before the same sites are asked anew


def cancels(state: State) -> tuple[Cancel, ...]:
    """Return what takes the requests back that nobody answered."""
    key = task_key(state)
    return tuple(Cancel(site, key) for site in state.pending if site in state.asked)


def _is_over(state: State, at: float) -> bool:
    if not state.pending or at >= deadline(state) or is_hopeless(state):
        return True
    is_enough = has_quorum(state, answered(state))
    return is_enough and not any(is_awaited(state, site, at) for site in state.pending)


def _closed(state: State, at: float) -> Step:
    if not has_quorum(state, answered(state)):
        return _repeat(state, at)
    if state.phase + 1 < len(state.plan.phases):
        return _next_phase(state, at)
    state = replace(state, status="closing", pending=(), cells=cells_of(state, at))
    actions: tuple[Action, ...] = (Aggregate(updates(state)),)
    return state, actions


def _next_phase(state: State, at: float) -> Step:
    """Ask those who answered; the others' requests stay noted, for the record of the round."""
    pending = answered(state)
    asked = {site: since for site, since in state.asked.items() if site not in pending}
    state, sends = call(replace(state, phase=state.phase + 1, pending=pending, asked=asked), at)
    return state, (Commit(), *sends)


def _repeat(state: State, at: float) -> Step:
    """Spend a spare attempt on the same round, or pause; nothing where persons left too few."""
    cells, codes = unapplied(cells_of(state, at)), refusals(state)
    if is_hopeless(state):  # nobody was late for it
        cells = abandoned(state, at, "round-not-applied")
    state = next_attempt(state)
    if has_quorum(state, members(state)) and not state.spares_left:
        state = paused_itself(state, "below-quorum")
    elif has_quorum(state, members(state)):
        state = held_back(replace(state, spares_left=state.spares_left - 1), codes, at)
    return open_attempt(state, at, cells)
