"""The requests of one study: what each site is asked, and what it must be told of its own updates.

A site whose objective keeps state there has to know which of its updates was applied last, a public
fact of the journal. Sites of other studies are told 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from larrey_protocol.study import Study
from larrey_server.checkpoints import Checkpoints
from larrey_server.round_values import Cell, State, Task
from larrey_server.rounds import task_of
from larrey_server.study_messages import Surroundings
from larrey_strategies.of_study import algorithm_of, site_vectors

__all__ = ["Requests"]


class Requests:
    """Sends one study's requests and takes them back; for one thread."""

    def __init__(
        self, study: Study, around: Surroundings, checkpoints: Checkpoints, applied: int
    ) -> None:
        """Take the study's surroundings, and the last applied round of its journal."""
        self._around = around
        self._checkpoints = checkpoints
        self._sent: dict[str, Task] = {}
        self._remembers = bool(site_vectors(algorithm_of(study)))
        self._applied: dict[str, int] = {}
        if self._remembers:
            rows = around.journal.contributions(study.digest)
            self.applied([row.cell for row in rows], applied)

    def applied(self, cells: Iterable[Cell], last: int) -> None:
        """Take in cells whose step is durable; those of rounds after ``last`` do not count."""
        for cell in cells if self._remembers else ():
            is_good = (cell.outcome, cell.code) == ("contributed", "") and cell.round <= last
            if is_good and cell.round > self._applied.get(cell.site, 0):
                self._applied[cell.site] = cell.round

    def send(self, state: State, site: str) -> None:
        """Ask a site for the present phase; never block."""
        task = task_of(
            state,
            self._checkpoints.offered_bytes,
            at=self._around.clock(),
            peer_head=self._around.journal.head(),
        )
        task = self._sent[site] = replace(task, applied=self._applied.get(site, 0))
        self._around.courier.send(site, task)

    def cancel(self, site: str) -> None:
        """Take back what a site was asked last, if it was asked."""
        task = self._sent.pop(site, None)
        if task is not None:
            self._around.courier.cancel(site, task)
