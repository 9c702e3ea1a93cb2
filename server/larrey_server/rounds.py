"""The rules of rounds: who is asked, when a round closes, what counts, when a study ends.

Pure: ``advance(state, event)`` gives the next state and what to do; it reads no clock and touches
nothing. `larrey_server.study_run` carries the actions out, commits first, announcements after.

    waiting ── Launched ──▶ open ── all answered / deadline ──▶ closing ── Aggregated ──▶ open …
                             │ below quorum: a spare attempt of the same round       └──▶ ended
                             └── no spare left ──▶ ended (FAILED)

Phases of a round are data: each asks the sites that answered the one before. A study's first round
has number 1; an attempt repeats a round with the same model, so a site that has already trained
sends the answer it stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

__all__ = [
    "STANDING_REFUSALS",
    "Action",
    "Aggregate",
    "Aggregated",
    "AggregationBroke",
    "Cancel",
    "Cell",
    "Commit",
    "Courier",
    "Event",
    "Launched",
    "Plan",
    "Replied",
    "Reply",
    "Resumed",
    "Send",
    "SiteDown",
    "SiteUp",
    "State",
    "Task",
    "TaskKey",
    "Ticked",
    "advance",
    "next_wake",
    "restore",
    "snapshot",
]

# Codes with which a site declines the study as such; it is not asked again. Any other code
# concerns one round.
STANDING_REFUSALS = frozenset(
    {
        "budget-exhausted",
        "not-approved",
        "not-held",
        "study-refused",
        "study-revoked",
        "study-unknown",
        "unknown-app",
        "unknown-model",
    }
)


# What the coordinator and a site say to each other about one phase of one round


@dataclass(frozen=True, slots=True)
class TaskKey:
    """Which request an answer belongs to."""

    study: str
    round: int
    phase: str
    attempt: int
    model: str


@dataclass(frozen=True, slots=True)
class Task:
    """One request to one site."""

    study: str
    round: int
    phase: str
    attempt: int
    model: str  # digest of the model file that the site fetches
    model_bytes: int
    deadline_s: float  # seconds left when it was sent
    peer_head: str  # the coordinator's audit head, "seq:hash"

    @property
    def key(self) -> TaskKey:
        """Return the part by which an answer is matched."""
        return TaskKey(self.study, self.round, self.phase, self.attempt, self.model)


class Courier(Protocol):
    """Carries tasks to sites; answers come back through `Conductor.reply`."""

    def send(self, site: str, task: Task) -> None:
        """Queue one task for one site; never block."""

    def cancel(self, site: str, task: Task) -> None:
        """Take a task back if the site has not taken it yet; never block."""
