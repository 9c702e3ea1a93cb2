"""Prints a study's progress: one line an event, or the events as JSON lines."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["describe", "follow"]

Facts = dict[str, Any]  # Any: JSON


def follow(events: Iterable[Facts], *, as_json: bool) -> int:
    """Print events until they end; return 0 unless the study failed."""
    outcome = ""
    for event in events:
        outcome = str(event.get("outcome") or outcome)
        if as_json:
            sys.stdout.write(json.dumps(event) + "\n")
        else:
            sys.stdout.write(describe(event) + "\n")
        sys.stdout.flush()
    return 1 if outcome == "FAILED" else 0


def describe(event: Facts) -> str:
    """Return one line about a status or an event."""
    parts = [str(event.get("event", event.get("state", "")))]
    if event.get("round"):
        parts.append(
            f"round {event['round']}" + (f"/{event['rounds']}" if "rounds" in event else "")
        )
    parts += [str(event[name]) for name in ("site", "outcome", "code", "reason") if event.get(name)]
    if event.get("stop"):
        parts.append(f"{event['stop']} ordered by {event['stop_by']} on {_day(event['stop_on'])}")
    if event.get("by"):
        parts.append(f"by {event['by']}")
    parts += [f"{site['site']}:{site['state']}" for site in _sites(event)]
    return "  ".join(part for part in parts if part)


def _day(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(" ", "minutes")


def _sites(event: Facts) -> list[Facts]:
    """Return the sites' states, of a status or of the status that came with an event."""
    status = event.get("status", event)
    return list(status.get("sites", ()))
