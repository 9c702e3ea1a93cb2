"""How long a round waits for whom. Pure; every time is an argument.

A site's own deadline is ``patience`` times what it usually takes, work and transfer at the 0.9
quantile of its last answers, and a twentieth of the study's deadline on top. A site without a
history has until the deadline of the phase, as has everybody at most. It counts from the request,
which a site outside its training window gets when the window opens.

Who was late gets twice the time it had, until that is all there is. A site that used up even that
is asked as before, but waited for only as if it were the slowest of the others (or as it was when
it was fastest), until it answers or connects anew: a hung site does not make every round last to
its deadline. After two such rounds in a row it is left out of the next one
while the others are a quorum, since its training would cost epsilon for nothing, then of the next
two, four and so on, until it answers; or a person extends a round or includes it, it connects anew,
or an answer that comes late proves that it needs less than the deadline.

After an attempt that sites' passing refusals made fall below quorum the next one waits: a spare
attempt is for what may be over by then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from larrey_server.round_cells import members
from larrey_server.round_values import AnsweredLate, Plan, Reply, State

__all__ = [
    "allowance",
    "deadline",
    "due",
    "forgiven",
    "heard_late",
    "is_awaited",
    "is_outside",
    "learned",
    "learned_late",
    "next_wake",
    "pause",
]

_KEPT = 20  # answers of a site that tell its pace
_QUANTILE = 0.9
_LATE_ENTRIES = _KEPT // 10 + 1  # so many of them move the quantile, however long the history
_NEARLY = 0.9  # of a time, to forgive a site that was asked a moment after the others
_SLACK = 1 / 20  # of the deadline, on top of what a site usually takes
_FIRST_PAUSE_S = 2.0  # after an attempt that refusals made fall; each is four times the one before
_LONGEST_PAUSE = 1 / 10  # of the deadline


def deadline(state: State) -> float:
    """Return when the present phase closes at the latest; persons may have extended it."""
    share = (state.phase + 1) / len(state.plan.phases)
    return state.opened_at + state.plan.deadline_s * share + state.extended_s


def allowance(state: State, site: str) -> float:
    """Return how many seconds a site has for the present phase, were there no end of the round."""
    rows = _history(state, site)
    if site in state.overdue:
        usual = max(_slowest(state), min(map(sum, rows), default=0.0))
    elif rows:
        usual = _usual(rows)
    else:
        return state.plan.deadline_s
    return state.plan.patience * usual + state.plan.deadline_s * _SLACK


def due(state: State, site: str) -> float | None:
    """Return when a site's answer is late, None while it was not asked in this phase."""
    if site not in state.asked:
        return None
    return min(state.asked[site] + allowance(state, site) + state.extended_s, deadline(state))


def is_outside(state: State, site: str, at: float) -> bool:
    """Return whether a site waits for its training window; what it has begun it finishes.

    So the later phases of a round that it trained in do not wait.
    """
    return state.phase == 0 and site not in state.asked and state.windows.get(site, 0.0) > at


def is_awaited(state: State, site: str, at: float) -> bool:
    """Return whether a phase that could close waits for a site that owes an answer."""
    if state.away.get(site, math.inf) <= at:
        return False
    if is_outside(state, site, at):
        return state.windows[site] < deadline(state)
    until = due(state, site)
    return until is None or until > at


def next_wake(state: State, at: float) -> float | None:
    """Return when `Ticked` is due next, None while only other events matter."""
    if state.status == "gathering":
        waits = [state.opens_not_before, *_windows(state, members(state))]
        return min((until for until in waits if until > at), default=None)
    if state.status != "open":
        return None
    dues = [until for site in state.pending if (until := due(state, site)) is not None]
    graces = [until for site, until in state.away.items() if site in state.pending]
    waits = [*dues, *graces, *_windows(state, state.pending)]
    return min([deadline(state), *(until for until in waits if until > at)])


def pause(plan: Plan, failures: int) -> float:
    """Return for how many seconds nothing is asked after so many attempts that refusals ended."""
    grown = _FIRST_PAUSE_S * 4.0 ** min(failures - 1, 9)  # by then longer than any deadline
    return min(grown, plan.deadline_s * _LONGEST_PAUSE)


def heard_late(state: State, event: AnsweredLate) -> State:
    """Return the state after an answer too late to count, whose site may be no slower than that."""
    number, since = state.last_asked.get(event.site, (0, 0.0))
    if event.round != number or event.at - since >= state.plan.deadline_s:
        return state
    return forgiven(state, event.site)


def learned(state: State, reply: Reply) -> State:
    """Return the state after an answer; one that may have been stored says nothing of a pace."""
    state = forgiven(state, reply.site)
    if reply.code or state.is_repeat:
        return state
    return _entered(state, reply.site, [(reply.work_s, reply.transfer_s)])


def learned_late(state: State, at: float) -> State:
    """Return the state after a phase that closed without the answers of sites that were there."""
    whole = state.plan.deadline_s / len(state.plan.phases)
    for site in state.pending:
        if site in state.away or site not in state.asked:
            continue
        waited, had = at - state.asked[site], allowance(state, site)
        if waited < _NEARLY * min(had, whole):  # it was asked late, or a person cut it short
            continue
        if site in state.overdue or waited >= _NEARLY * whole:
            is_repeat = state.last_asked.get(site, (0, 0.0))[0] == state.round
            count = state.overdue.get(site, 0) + (not is_repeat)
            asked = {**state.last_asked, site: (state.round, state.asked[site])}
            overdue = {**state.overdue, site: count}
            state = replace(state, overdue=overdue, last_asked=asked)
        elif _history(state, site):
            twice = min(2 * had, state.plan.deadline_s)
            state = _entered(state, site, [(twice, 0.0)] * _LATE_ENTRIES)
    return state


def forgiven(state: State, site: str) -> State:
    """Return the state in which a site did not use up the time of any round."""
    overdue = {name: count for name, count in state.overdue.items() if name != site}
    asked = {name: when for name, when in state.last_asked.items() if name != site}
    return replace(state, overdue=overdue, last_asked=asked)


def _slowest(state: State) -> float:
    """Return how long the slowest answer to the present phase took, 0 without one.

    Where answers may have been stored, it is what their sites usually take if that is more.
    """
    phase, is_repeat = state.plan.phases[state.phase], state.is_repeat
    good = [reply for reply in state.replies if reply.phase == phase and not reply.code]
    usual = [_usual(rows) for r in good if is_repeat and (rows := _history(state, r.site))]
    return max([*usual, *(reply.work_s + reply.transfer_s for reply in good)], default=0.0)


def _usual(rows: Sequence[tuple[float, float]]) -> float:
    """Return how long answers of a site take, from what work and transfer took of the last ones."""
    return _quantile([work for work, _ in rows]) + _quantile([move for _, move in rows])


def _history(state: State, site: str) -> tuple[tuple[float, float], ...]:
    return state.pace.get(site, {}).get(state.plan.phases[state.phase], ())


def _entered(state: State, site: str, rows: Sequence[tuple[float, float]]) -> State:
    """Return the state with more of a site's history in the present phase."""
    fresh = tuple((round(work, 3), round(move, 3)) for work, move in rows)
    kept = (*_history(state, site), *fresh)[-_KEPT:]
    phases = {**state.pace.get(site, {}), state.plan.phases[state.phase]: kept}
    return replace(state, pace={**state.pace, site: phases})


def _windows(state: State, sites: Sequence[str]) -> list[float]:
    return [state.windows[s] for s in sites if s in state.windows and s not in state.asked]


def _quantile(values: Sequence[float]) -> float:
    """Return the 0.9 quantile by nearest rank."""
    return sorted(values)[math.ceil(_QUANTILE * len(values)) - 1]
