"""From the points that were reached: what each death cost, and how long until the work went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.stand import Mark


@dataclass(frozen=True)
class Kill:
    """One death.

    Attributes:
        label: where it stood.
        program: whose process it was: ``coordinator`` or a site.
        spends: it came between RESERVE and COMMIT.
        poll_s: until the site's new agent had the coordinator's answer and polled again; None
            where no agent died.
        train_s: until the site trained again, beside its trainer's imports; None where nothing was
            to be trained.
        import_s: of the new trainer; None where none was started.
        coordinator_s: until the coordinator handed over a task again; None where it did not die.
    """

    label: str
    program: str
    spends: bool
    poll_s: float | None = None
    train_s: float | None = None
    import_s: float | None = None
    coordinator_s: float | None = None


def kills_at_site(site: str, marks: Sequence[Mark]) -> list[Kill]:
    """Return a site's deaths, from all points that its processes reached."""
    found, is_reserved, is_due = [], False, False
    for index, mark in enumerate(marks):
        if mark.killed:
            poll = _polled(mark, marks[index:]) if mark.killed.startswith("agent.") else None
            trained = _trained(mark, marks[index:]) if is_due else (None, None)
            found.append(Kill(mark.killed, site, is_reserved, poll, *trained))
            is_reserved = is_due = False
        elif mark.label == "agent.task-taken":
            is_due = True
        elif mark.label == "agent.reserved":
            is_reserved = True
        elif mark.label == "agent.answer-committed":
            is_reserved = is_due = False
    return found


def kills_at_coordinator(marks: Sequence[Mark]) -> list[Kill]:
    """Return the deaths of a coordinator and of its worker."""
    found = []
    for index, mark in enumerate(marks):
        if mark.killed.startswith("coordinator."):
            again = _first("coordinator.task-handed-over", mark, marks[index:])
            seconds = again.at - mark.at if again else None
            found.append(Kill(mark.killed, "coordinator", False, coordinator_s=seconds))
        elif mark.killed:
            found.append(Kill(mark.killed, "coordinator", False))
    return found


def _polled(death: Mark, after: Sequence[Mark]) -> float | None:
    """Return the seconds until a new agent polls, which it does once it was answered."""
    again = _first("agent.polling", death, after)
    return again.at - death.at if again else None


def _trained(death: Mark, after: Sequence[Mark]) -> tuple[float | None, float | None]:
    """Return the seconds until training begins, without the imports, and the imports'."""
    again = _first("trainer.training-begun", death, after)
    if again is None:
        return None, None
    times = {mark.label: mark.at for mark in after if mark.pid == again.pid}
    if "started" not in times or "trainer.warmed" not in times:  # it lived before
        return again.at - death.at, None
    imports = times["trainer.warmed"] - times["started"]
    return max(0.0, again.at - death.at - imports), imports


def _first(label: str, death: Mark, after: Sequence[Mark]) -> Mark | None:
    """Return the first mark of another process at a label."""
    return next((m for m in after if m.label == label and m.pid != death.pid), None)
