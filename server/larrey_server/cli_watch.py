"""Prints a study's progress: one line a round, or every event as a JSON line."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["describe", "follow", "lines", "stopped"]

Facts = dict[str, Any]  # Any: JSON

_STATUS = {"COMPLETE": 0, "PARTIAL": 3, "FAILED": 4}
_CLOSED = 5
_UNENDED = 1
_ROW = "{:<7}  {:>9}  {:>11}  {:>11}  {}"
_HEAD = _ROW.format("ROUND", "TIME", "CONTRIBUTED", "EPSILON", "REMARKS")
_BY_ORDER = {
    "pause-ordered": "pause ordered",
    "halt-ordered": "halted",
    "resume-ordered": "resumed",
}


def follow(events: Iterable[Facts], *, as_json: bool) -> int:
    """Print events until they end; return the exit status, which says how the study ended.

    0 for COMPLETE, 3 for PARTIAL, 4 for FAILED, 5 for a study that a person closed, whatever it had
    reached; 1 where it has not ended. 2 is a wrong usage everywhere.
    """
    status = _UNENDED

    def heard() -> Iterator[Facts]:
        nonlocal status
        for event in events:
            if event.get("outcome"):
                is_closed = event.get("reason") == "closed-by-order"
                status = _CLOSED if is_closed else _STATUS[event["outcome"]]
            yield event

    for line in map(json.dumps, heard()) if as_json else lines(heard()):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if status == _UNENDED:
        sys.stderr.write("the coordinator ended the watch; the study has not ended\n")
    return status


def lines(events: Iterable[Facts]) -> Iterator[str]:
    """Give a line for each status, round, stop and end; rounds are the rows of one table.

    A row's time is since the launch, its epsilon the largest of any site so far, per patient.
    """
    began, is_headed = None, False
    for event in events:
        began = began if began is not None else _began(event)
        if event.get("event") in {"round-applied", "round-not-applied"}:
            if not is_headed:
                yield _HEAD
            is_headed = True
            yield _round(event, began)
        elif said := _said(event):
            yield said


def _said(event: Facts) -> str:
    """Return the line of an event outside of the table, empty for one that is told by none."""
    match event.get("event", ""):
        case "":
            return describe(event)
        case "pause-ordered" | "halt-ordered" | "resume-ordered" as kind:
            return _BY_ORDER[kind] + _who(event.get("by", ""), event.get("code", ""))
        case "site-stopped":
            return f"{event['site']} takes no further part: {event['code']}"
        case "study-stalled":
            return f"stalled ({event['code']}): see the coordinator's log, then start it again"
        case "study-ended":
            return "  ".join(filter(None, ("ended", event["outcome"], event["reason"])))
        case _:
            return ""


def describe(status: Facts) -> str:
    """Return one line about a study's status."""
    parts = [str(status.get("state", ""))]
    if status.get("round"):
        parts.append(f"round {status['round']}/{status['rounds']}")
    parts += [str(status[name]) for name in ("outcome", "reason") if status.get(name)]
    parts.append(stopped(status))
    parts += [f"{site['site']}:{site['state']}" for site in status.get("sites", ())]
    return "  ".join(part for part in parts if part)


def stopped(status: Facts) -> str:
    """Return who stopped a study, why and when, empty while nobody did."""
    if not status.get("stop"):
        return ""
    at = dt.datetime.fromtimestamp(status["stop_on"] or 0.0, dt.UTC)
    who = _who(status["stop_by"], status.get("stop_code", ""))
    return f"{status['stop']} ordered{who} on {at:%Y-%m-%d %H:%M}"


def _who(by: str, code: str) -> str:
    return (f" by {by}" if by else "") + (f" ({code})" if code else "")


def _began(event: Facts) -> float | None:
    """Return when the study was launched, as its order or the event says; None before."""
    if event.get("event") == "launched":
        return float(event["at"])
    launches = [order["at"] for order in event.get("orders", ()) if order["verb"] == "launch"]
    return float(launches[0]) if launches else None


def _round(event: Facts, began: float | None) -> str:
    cells, status = event["sites"].values(), event["status"]
    contributed = sum(cell["outcome"] == "contributed" for cell in cells)
    others = Counter(
        cell["outcome"] + (f" ({cell['code']})" if cell["code"] else "")
        for cell in cells
        if cell["outcome"] != "contributed"
    )
    remarks = [f"{count} {what}" for what, count in sorted(others.items())]
    if event["event"] == "round-not-applied":
        remarks.insert(0, "not applied")
    spent = [site["epsilon"] for site in status["sites"] if site["epsilon"] is not None]
    since = dt.timedelta(seconds=max(0, round(event["at"] - began))) if began is not None else "-"
    return _ROW.format(
        f"{event['round']}/{status['rounds']}",
        str(since),
        f"{contributed}/{len(cells)}",
        f"{max(spent):.4g}" if spent else "-",
        ", ".join(remarks),
    ).rstrip()
