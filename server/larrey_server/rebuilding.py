"""Makes a lost or altered checkpoint again from what its round was made of.

The updates of the last applied round and what the strategy kept before it stay until the next round
is applied. Replayed on the previous checkpoint they give the same bits, which the journal's digests
prove; nothing takes a checkpoint's name before that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from larrey_protocol.audit import AuditRecord
from larrey_protocol.errors import IntegrityError
from larrey_protocol.study import Study
from larrey_server.aggregator import Outcome
from larrey_server.checkpoints import Checkpoints
from larrey_server.contributions import averaging
from larrey_server.round_values import State
from larrey_server.study_messages import Surroundings

__all__ = ["Mender", "rebuilt_record"]


class Mender:
    """Looks after the newest checkpoint of one study; for one thread."""

    def __init__(
        self,
        study: Study,
        around: Surroundings,
        checkpoints: Checkpoints,
        answered: Callable[[Outcome], None],  # takes the worker's answer, from any thread
    ) -> None:
        self._study = study
        self._around = around
        self._checkpoints = checkpoints
        self._answered = answered

    def look(self, state: State) -> Literal["sound", "rebuilt", "asked"]:
        """Return how the newest checkpoint is; ``asked`` when the worker is making it again.

        Raises:
            IntegrityError: ``checkpoint-broken``: it cannot be made again.
        """
        if self._checkpoints.holds(state.applied, state.model, state.memory, state.request):
            return "sound"
        if state.applied == 0:
            made = self._checkpoints.begin(), self._checkpoints.first_request()
            if made != (state.model, state.request):
                raise _broken(state)
            return "rebuilt"
        around, updates = self._around, self.last_updates(state)
        if not updates or not all(around.spool.complete(update) for _, update in updates):
            raise _broken(state)
        order = averaging(
            self._study,
            state.applied,
            updates,
            checkpoints=self._checkpoints,
            path=around.spool.path,
        )
        around.aggregator.aggregate(self._checkpoints.aside(order, state.applied), self._answered)
        return "asked"

    def accept(self, state: State, outcome: Outcome) -> None:
        """Put what the worker made in the place of the newest checkpoint.

        Raises:
            IntegrityError: ``checkpoint-broken``: it is not what the journal says, or there is
                none.
        """
        made = outcome.digest, outcome.memory, outcome.request
        if outcome.code or made != (state.model, state.memory, state.request):
            raise _broken(state)
        self._checkpoints.accept(state.applied)

    def last_updates(self, state: State) -> tuple[tuple[str, str], ...]:
        """Return (site, update) of the last applied round of a study that goes on, as averaged."""
        if state.status == "ended":
            return ()
        rows = self._around.journal.contributions(self._study.digest)
        cells = [row.cell for row in rows if row.cell.round == state.applied]
        good = [cell for cell in cells if (cell.outcome, cell.code) == ("contributed", "")]
        return tuple((cell.site, cell.update) for cell in good)


def rebuilt_record(state: State, at: float) -> AuditRecord:
    """Return the record of a checkpoint that was made again, not yet chained."""
    study = state.plan.study
    return AuditRecord(
        0, at, "coordinator", "checkpoint-rebuilt", study, state.applied, state.model
    )


def _broken(state: State) -> IntegrityError:
    return IntegrityError(
        "checkpoint-broken",
        f"the model after round {state.applied} is missing or is not the recorded one, and could"
        " not be made again",
        "Restore the studies folder from a backup; the study goes on by itself then.",
    )
