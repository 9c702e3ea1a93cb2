"""Which answers came too late to count."""

from __future__ import annotations

from collections.abc import Iterable

from larrey_server.journal import Journal
from larrey_server.round_values import Cell, State, TaskKey

__all__ = ["LateAnswers", "is_too_late"]


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


class LateAnswers:
    """The answers to one study that came too late, each told once; for one thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._told: set[tuple[str, int, str]] = set()

    def is_news(self, state: State, site: str, key: TaskKey) -> bool:
        """Return whether an update is late and was not told before."""
        if (site, key.round, key.phase) in self._told:
            return False
        rows = self._journal.contributions(state.plan.study)
        return is_too_late(state, [row.cell for row in rows], site, key)

    def told(self, site: str, key: TaskKey) -> None:
        """Note that it is on record."""
        self._told.add((site, key.round, key.phase))
