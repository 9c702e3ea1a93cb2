"""How an attempt of a round opens: when quorum is there, and not before. Pure.

An attempt opens when at least ``quorum`` sites and all ``required`` ones are connected and inside
their training windows. Until then the study gathers: nothing is sent and no spare attempt is used.
Where too few sites are left for good, the study pauses itself; people can still act. A site that is
too slow for any round is asked only where the others that are there are no quorum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from larrey_server.round_cells import has_quorum, is_too_slow, members
from larrey_server.round_clock import is_outside, pause
from larrey_server.round_values import Action, Cell, Commit, Send, State

__all__ = [
    "QUORUM_STOPS",
    "Missing",
    "Step",
    "afresh",
    "call",
    "durable",
    "end",
    "gather",
    "held_back",
    "missing",
    "next_attempt",
    "open_attempt",
    "paused_itself",
]

Step: TypeAlias = tuple[State, tuple[Action, ...]]

QUORUM_STOPS = frozenset({"below-quorum", "too-few-sites"})  # codes with which a study pauses


@dataclass(frozen=True, slots=True)
class Missing:
    """A site that is not there: why, and when its training window opens, if it waits for one."""

    site: str
    why: Literal["not-joined", "stopped", "excluded", "away", "outside-window"]
    until: float = 0.0


def missing(state: State, at: float) -> tuple[Missing, ...]:
    """Return every invited site that could not be asked now, in roster order."""
    found = (_missing(state, site, at) for site in state.plan.invited)
    return tuple(one for one in found if one is not None)


def _missing(state: State, site: str, at: float) -> Missing | None:
    if site in state.stopped:
        return Missing(site, "stopped")
    if site not in state.joined:
        return Missing(site, "not-joined")
    if site in state.excluded:
        return Missing(site, "excluded")
    opens = state.windows[site] if is_outside(state, site, at) else 0.0
    if site in state.away:
        return Missing(site, "away", opens)
    return Missing(site, "outside-window", opens) if opens else None


def open_attempt(state: State, at: float, cells: tuple[Cell, ...] = ()) -> Step:
    """Open the attempt that ``state`` names, or gather for it; ``cells`` are of the one before."""
    state = replace(state, status="gathering", phase=0, pending=(), replies=(), cells=(), asked={})
    if state.stop:
        return replace(state, status="paused"), (Commit(cells),)
    state, actions = gather(state, at)
    return state, (Commit(cells), *(one for one in actions if not isinstance(one, Commit)))


def gather(state: State, at: float) -> Step:
    """Open the attempt if quorum is there. What it sends is durable: the state names it already."""
    lasting = tuple(site for site in state.joined if site not in state.stopped)
    gone = set(state.plan.required) & set(state.stopped)
    if len(lasting) < state.plan.quorum or gone:
        return paused_itself(state, "too-few-sites"), (Commit(),)
    away = {one.site for one in missing(state, at)}
    there = tuple(site for site in members(state) if site not in away)
    if at < state.opens_not_before or not has_quorum(state, there):
        return state, ()
    pending = tuple(site for site in members(state) if not is_too_slow(state, site))
    if not has_quorum(state, tuple(site for site in there if site in pending)):
        pending = members(state)
    state = replace(state, opens_not_before=0.0, refusals={})
    return call(replace(state, status="open", opened_at=at, pending=pending), at)


def call(state: State, at: float) -> Step:
    """Ask whoever is there, owes an answer and was not asked; its clock starts."""
    sites = [
        site
        for site in state.pending
        if site not in state.away and site not in state.asked and not is_outside(state, site, at)
    ]
    asked = {**state.asked, **dict.fromkeys(sites, at)}
    return replace(state, asked=asked), tuple(Send(site) for site in sites)


def paused_itself(state: State, code: str) -> State:
    """Return the state of a study that cannot go on without people; their own stop stays."""
    if state.stop:
        return replace(state, status="paused")
    return replace(state, status="paused", stop="pause", stop_code=code)


def held_back(state: State, codes: Mapping[str, str], at: float) -> State:
    """Return the state whose next attempt waits, where sites' passing refusals ended the last."""
    if not codes:
        return state
    failures = state.failures + 1
    opens = at + pause(state.plan, failures)
    return replace(state, failures=failures, refusals=dict(codes), opens_not_before=opens)


def afresh(state: State) -> State:
    """Return the state that waits for no pause, and whose next one is the shortest."""
    return replace(state, failures=0, refusals={}, opens_not_before=0.0)


def next_attempt(state: State) -> State:
    """Return the state that names a further attempt of the same round."""
    return replace(state, attempt=state.attempt + 1, is_repeat=True, extended_s=0.0)


def end(
    state: State,
    outcome: Literal["COMPLETE", "PARTIAL", "FAILED"],
    reason: str,
    cells: tuple[Cell, ...],
) -> Step:
    """End the study."""
    state = replace(
        state, status="ended", outcome=outcome, reason=reason,
        pending=(), replies=(), cells=(), asked={},
        stop="", stop_by="", stop_on=0.0, stop_code="",
    )  # fmt: skip
    return state, (Commit(cells),)


def durable(step: Step) -> Step:
    """Return a step whose state is committed before anything else is done."""
    state, actions = step
    if actions and isinstance(actions[0], Commit):
        return step
    return state, (Commit(), *actions)
