"""Prints a study's progress: one line a round, or every event as a JSON line."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from larrey_server.cli_status import clock, describe, missing, pausing, stopped

__all__ = ["follow", "lines"]

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
    say = _SAID.get(event.get("event", ""))
    return say(event) if say is not None else ""


def _gathering(event: Facts) -> str:
    status = event["status"]
    if said := pausing(status):
        return said
    waits = "; ".join(missing(status)) or "all are there"
    return f"round {event['round']} waits for {status['quorum']} sites: {waits}"


def _paused(event: Facts) -> str:
    status = event["status"]
    if not status.get("next_step"):
        return "paused"
    return f"{stopped(status)}; next: {status['next_step']}"


def _window(event: Facts) -> str:
    site, sites = event["site"], event["status"]["sites"]
    opens = next((one.get("opens_at") for one in sites if one["site"] == site), None)
    if opens is None:
        return f"{site} is inside its training window"
    return f"{site} waits for its training window until {clock(opens)}"


def _ordered(event: Facts) -> str:
    return _BY_ORDER[event["event"]] + _who(event.get("by", ""), event.get("code", ""))


def _excluded(event: Facts) -> str:
    return f"{event['site']} is excluded{_who(event.get('by', ''), event['reason'])}"


def _included(event: Facts) -> str:
    return f"{event['site']} takes part again{_by_order(event)}"


def _extended(event: Facts) -> str:
    return f"the open round has {event['seconds']:.0f} seconds more{_by_order(event)}"


def _late(event: Facts) -> str:
    return f"{event['site']} answered round {event['round']} too late; that is not applied"


def _overdue(event: Facts) -> str:
    site, name = event["site"], event["status"]["name"]
    said = f"{site} needs more time than a round may take: what it trained cost epsilon for nothing"
    if event["asked_next"]:
        said += (
            f", again; while the others are a quorum, it is asked in round {event['asked_next']}"
        )
    return f"{said}; next: larrey study extend {name} SECONDS, or exclude {name} {site}"


def _by_order(event: Facts) -> str:
    return f" by order of {event['by']}" if event.get("by") else ""


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
        by = f", retried{_who(event['by'], '')}" if event.get("by") else ""
        remarks.insert(0, f"not applied{by}")
    spent = [site["epsilon"] for site in status["sites"] if site["epsilon"] is not None]
    since = dt.timedelta(seconds=max(0, round(event["at"] - began))) if began is not None else "-"
    return _ROW.format(
        f"{event['round']}/{status['rounds']}",
        str(since),
        f"{contributed}/{len(cells)}",
        f"{max(spent):.4g}" if spent else "-",
        ", ".join(remarks),
    ).rstrip()


_SAID: Mapping[str, Callable[[Facts], str]] = {
    "": describe,
    "answer-late": _late,
    "checkpoint-rebuilt": lambda event: (
        f"the model after round {event['round']} was lost or altered, and was made again from its"
        " updates"
    ),
    "halt-ordered": _ordered,
    "pause-ordered": _ordered,
    "resume-ordered": _ordered,
    "round-extended": _extended,
    "round-gathering": _gathering,
    "site-excluded": _excluded,
    "site-included": _included,
    "site-joined": lambda event: f"{event['site']} takes part from the next round on",
    "site-overdue": _overdue,
    "site-stopped": lambda event: f"{event['site']} takes no further part: {event['code']}",
    "site-window": _window,
    "study-ended": lambda event: "  ".join(
        filter(None, ("ended", event["outcome"], event["reason"]))
    ),
    "study-paused": _paused,
    "study-stalled": lambda event: (
        f"stands still ({event['code']}): it goes on by itself once that is mended;"
        " see the coordinator's log"
    ),
    "study-went-on": lambda _: "goes on",
}
