"""Asks the worker to check an update, and says when its answer is about the worker itself.

That a worker crashed, or could not read a file, is no site's fault: the update is checked again. As
an update might be what crashes it, the study stands still for it for a minute or two at most.
"""

from __future__ import annotations

from collections.abc import Callable

from larrey_protocol.errors import IntegrityError
from larrey_protocol.models import phase_layout
from larrey_protocol.signed import Receipt
from larrey_protocol.study import Study
from larrey_server.aggregator import Outcome
from larrey_server.study_messages import Arrived, Checked, Surroundings
from larrey_strategies.drift import update_bound

__all__ = ["ask", "own_failure", "told"]

_MOST_TRIALS = 8
_OWN_FAULTS = frozenset({"aggregation-crashed", "aggregation-failed", "disk-full"})


def ask(
    study: Study,
    around: Surroundings,
    post: Callable[[Checked], None],
    answer: Arrived,
    receipt: Receipt,
    trial: int = 1,
) -> None:
    """Have the worker check an update that should lie in the spool; ``post`` hears what it finds.

    That is ``update-missing`` where it does not lie there any more.
    """
    if not around.spool.complete(answer.update):
        post(Checked(answer, receipt, Outcome("update-missing"), trial))
        return
    around.aggregator.check(
        around.spool.path(answer.update),
        phase_layout(study, answer.key.phase),
        update_bound(study, answer.site, answer.key.phase),
        lambda outcome: post(Checked(answer, receipt, outcome, trial)),
    )


def own_failure(message: Checked) -> IntegrityError | None:
    """Return why an update is to be checked again; None where the answer is about the update."""
    code = message.outcome.code
    if code not in _OWN_FAULTS or message.trial >= _MOST_TRIALS:
        return None
    what = f"an update of {message.arrived.site} could not be checked"
    return IntegrityError(code, what, "See the coordinator's log; it is checked again.")


def told(code: str) -> str:
    """Return the code that an update gets: ``update-unchecked`` where no trial said a thing."""
    return "update-unchecked" if code in _OWN_FAULTS else code
