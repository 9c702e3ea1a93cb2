"""Turns the events of studies into metrics and lines of the log.

`larrey_server.watching.changes` lists the events.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from larrey_protocol.study import Study
from larrey_server.metrics import Metrics

__all__ = ["count", "known", "stand"]

logger = logging.getLogger(__name__)


def count(  # noqa: C901 - one case an event
    metrics: Metrics,
    study: str,
    event: Mapping[str, Any],  # Any: JSON
) -> None:
    """Count one event of a study, by the study's name; one that says nothing new counts nothing."""
    status = event["status"]
    facts = (study, event.get("round", status["round"]), event.get("site", ""))
    logger.info("%s study=%s round=%s site=%s", event["event"], *facts)
    match event["event"]:
        case "round-opened":
            metrics.round_began(study)
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
    stand(metrics, study, status)


def known(metrics: Metrics, study: Study) -> None:
    """Show a study of which nothing happened yet."""
    file = study.file
    metrics.study_known(
        study.name,
        file.site_names,
        file.rounds.quorum,
        file.training.rounds,
        file.rounds.deadline_s,
        epsilon=getattr(file.privacy, "epsilon", None),
    )


def stand(metrics: Metrics, study: str, status: Mapping[str, Any]) -> None:  # Any: JSON
    """Show where a study stands, after an event or when the coordinator starts again."""
    states = [one["state"] for one in status["sites"]]
    spent = [(one["site"], one["epsilon"]) for one in status["sites"] if one["epsilon"] is not None]
    metrics.study_stands(
        study,
        status["state"],
        status["round"],
        excluded=states.count("excluded"),
        waiting=states.count("answered"),
        epsilon=spent,
    )


def _why_not(event: Mapping[str, Any]) -> str:  # Any: JSON
    if event["status"]["stop"] == "halt":
        return "halted"
    is_retried = any(cell["code"] == "round-retried" for cell in event["sites"].values())
    return "retried" if is_retried else "no_quorum"
