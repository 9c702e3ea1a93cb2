"""Which answers came too late to count. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from larrey_server.round_values import Cell, State, TaskKey

__all__ = ["is_too_late"]


def is_too_late(state: State, cells: Iterable[Cell], site: str, key: TaskKey) -> bool:
    """Return whether a site's update missed its round, or its phase of the open round.

    What was sent in time and is sent again is not late, nor what may count in a further attempt.

    Args:
        state: where the study stands.
        cells: of all attempts so far.
        site: that sent the update.
        key: of the request that it answers.
    """
    phases = state.plan.phases
    if site not in state.joined or key.study != state.plan.study or key.phase not in phases:
        return False
    if key.round == state.round and state.status in {"open", "closing"}:
        counted = {reply.phase for reply in state.replies if reply.site == site}
        passed = state.phase + (state.status == "closing")
        return key.phase not in counted and phases.index(key.phase) < passed
    counts = any(
        (cell.site, cell.round, cell.outcome, cell.code) == (site, key.round, "contributed", "")
        for cell in cells
    )
    return 0 < key.round <= state.applied and not counts
