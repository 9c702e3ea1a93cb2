"""What the audit trail says of one step of a study. Pure."""

from __future__ import annotations

from larrey_protocol.audit import AuditRecord
from larrey_server.round_values import State

__all__ = ["step_record"]

_STOPPED = {"": "resumed", "pause": "paused", "halt": "halted"}


def step_record(before: State, after: State, at: float) -> AuditRecord:
    """Return the record of a step, not yet chained; ``at`` is in seconds since 1970."""
    return AuditRecord(
        seq=0,
        at=at,
        actor="coordinator",
        action=_verb(before, after),
        study=after.plan.study,
        round=after.round,
        subject=after.model,
        code=after.reason,
    )


def _verb(before: State, after: State) -> str:
    if after.status == "ended":
        return "study-ended"
    if before.status == "waiting":
        return "study-started"
    if after.applied > before.applied:
        return "round-applied"
    if (after.status, after.stop) != (before.status, before.stop) and (before.stop or after.stop):
        return f"study-{_STOPPED[after.stop]}"
    if after.attempt != before.attempt:
        return "round-repeated"
    return "site-stopped" if len(after.stopped) > len(before.stopped) else "phase-closed"
