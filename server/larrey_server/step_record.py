"""What the audit trail says of one step of a study. Pure."""

from __future__ import annotations

from larrey_protocol.audit import AuditRecord
from larrey_server.round_values import State, TaskKey

__all__ = ["late_record", "step_record"]

_STOPPED = {"": "resumed", "pause": "paused", "halt": "halted"}


def step_record(before: State, after: State, at: float) -> AuditRecord:
    """Return the record of a step, not yet chained; ``at`` is in seconds since 1970.

    Its subject is the site that it is about, else the newest model; its code says why.
    """
    action, site, code = _told(before, after)
    return AuditRecord(
        seq=0,
        at=at,
        actor="coordinator",
        action=action,
        study=after.plan.study,
        round=after.round,
        subject=site or after.model,
        code=code,
    )


def late_record(site: str, key: TaskKey, at: float) -> AuditRecord:
    """Return the record of an update that came too late for its round, not yet chained."""
    return AuditRecord(0, at, "coordinator", "answer-late", key.study, key.round, site)


def _told(before: State, after: State) -> tuple[str, str, str]:
    """Return a step's action, the one site it is about, and why; the weightiest of what it did."""
    if after.status == "ended":
        return "study-ended", "", after.reason
    if before.status == "waiting":
        return "study-started", "", ""
    if after.applied > before.applied:
        return "round-applied", "", ""
    if (after.status, after.stop) != (before.status, before.stop) and (before.stop or after.stop):
        return f"study-{_STOPPED[after.stop]}", "", after.stop_code
    return _of_a_site(before, after) or (_of_the_round(before, after), "", "")


def _of_a_site(before: State, after: State) -> tuple[str, str, str] | None:
    """Return what became of the one site that came, went or was left out."""
    found = (
        ("site-stopped", after.stopped.keys() - before.stopped.keys()),
        ("site-excluded", after.excluded.keys() - before.excluded.keys()),
        ("site-included", before.excluded.keys() - after.excluded.keys()),
        ("site-joined", set(after.joined) - set(before.joined)),
        ("site-joined", before.stopped.keys() - after.stopped.keys()),
    )
    for action, sites in found:
        for site in sites:
            return action, site, after.stopped.get(site, "")
    return None


def _of_the_round(before: State, after: State) -> str:
    if after.attempt != before.attempt:
        return "round-repeated"
    if after.extended_s > before.extended_s:
        return "round-extended"
    return "phase-closed" if after.phase != before.phase else "order-noted"
