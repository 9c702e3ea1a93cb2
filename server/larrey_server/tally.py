"""Turns the events of studies into metrics; `larrey_server.watching.changes` lists the events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from larrey_server.metrics import Metrics

__all__ = ["count"]


def count(  # noqa: C901 - one case an event
    metrics: Metrics,
    study: str,
    event: Mapping[str, Any],  # Any: JSON
) -> None:
    """Count one event of a study, by the study's name; one that says nothing new counts nothing."""
    status = event["status"]
    excluded = sum(one["state"] == "excluded" for one in status["sites"])
    metrics.study_waits(study, is_gathering=status["state"] == "gathering", excluded=excluded)
    match event["event"]:
        case "round-opened":
            metrics.round_began(study, event["round"])
        case "round-applied":
            metrics.round_ended(study, "completed")
        case "round-not-applied":
            metrics.round_ended(study, _why_not(event))
        case "study-paused" | "pause-ordered" | "halt-ordered" | "resume-ordered":
            metrics.study_stopped(study, status["stop"])
        case "site-answered" if event["code"]:
            metrics.update_rejected(study, event["site"], event["code"])
        case "answer-late":
            metrics.update_late(study, event["site"])
        case "checkpoint-rebuilt":
            metrics.checkpoint_rebuilt(study)
        case "study-stalled" | "study-went-on":
            metrics.study_stalled(study, is_stalled=bool(event["code"]))
        case "study-ended":
            metrics.study_ended(study, event["outcome"])


def _why_not(event: Mapping[str, Any]) -> str:  # Any: JSON
    if event["status"]["stop"] == "halt":
        return "halted"
    is_retried = any(cell["code"] == "round-retried" for cell in event["sites"].values())
    return "retried" if is_retried else "no_quorum"
