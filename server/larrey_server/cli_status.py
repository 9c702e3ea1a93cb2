"""A study's status in words: one line for all, and one for each site that is waited for."""

from __future__ import annotations

import datetime as dt
from typing import Any

__all__ = ["clock", "describe", "missing", "pausing", "remark", "stopped"]

Facts = dict[str, Any]  # Any: JSON

_PAUSED_ITSELF = {
    "below-quorum": "too few sites answered, and no spare attempt is left",
    "too-few-sites": "too few sites are left for good",
}


def describe(status: Facts) -> str:
    """Return a study's status: a line, then one for each site that is missing and the next step."""
    parts = [str(status.get("state", ""))]
    if status.get("round"):
        parts.append(f"round {status['round']}/{status['rounds']}")
    parts += [str(status[name]) for name in ("outcome", "reason") if status.get(name)]
    parts.append(stopped(status))
    parts.append(pausing(status))
    if status.get("missing"):
        parts.append(_present(status))
        parts += [f"\n  {line}" for line in missing(status)]
    else:
        parts += [_site(site) for site in status.get("sites", ())]
    if status.get("next_step"):
        parts.append(f"\n  next: {status['next_step']}")
    return "  ".join(part for part in parts if part).replace("  \n", "\n")


def stopped(status: Facts) -> str:
    """Return who stopped a study, why and when, empty while nobody did."""
    if not status.get("stop"):
        return ""
    code = status.get("stop_code", "")
    if code in _PAUSED_ITSELF:
        return f"paused itself: {_PAUSED_ITSELF[code]}"
    at = dt.datetime.fromtimestamp(status["stop_on"] or 0.0, dt.UTC)
    by = f" by {status['stop_by']}" if status["stop_by"] else ""
    return f"{status['stop']} ordered{by}{f' ({code})' if code else ''} on {at:%Y-%m-%d %H:%M}"


def pausing(status: Facts) -> str:
    """Return when the next attempt opens after refusals, and whose; empty while none waits."""
    if not status.get("next_attempt_at"):
        return ""
    at = dt.datetime.fromtimestamp(status["next_attempt_at"], dt.UTC)
    whose = ", ".join(f"{site} refused ({code})" for site, code in status["refusals"].items())
    return (
        f"round {status['round']} begins again at {at:%H:%M:%S} UTC, since {whose};"
        f" at once: larrey study retry {status['name']}"
    )


def remark(status: Facts) -> str:
    """Return in a few words what a person should know of a study: who stopped it, who is missing.

    The next step follows where there is one.
    """
    said = stopped(status) or pausing(status)
    if not said and status.get("missing"):
        said = f"waits for sites; missing: {', '.join(one['site'] for one in status['missing'])}"
    return f"{said}; next: {status['next_step']}" if status.get("next_step") else said


def missing(status: Facts) -> list[str]:
    """Return a line for each site that a study waits for, with the reason."""
    required = status.get("required", ())
    return [
        f"{one['site']} {_why(one)}" + ("; no round without it" if one["site"] in required else "")
        for one in status.get("missing", ())
    ]


def clock(at: float) -> str:
    """Return a time of the coming week, in seconds since 1970, as a person reads it."""
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%a %H:%M} UTC"


def _present(status: Facts) -> str:
    return f"{status['present']} of the {status['quorum']} sites that a round needs are there"


def _why(one: Facts) -> str:
    match one["why"]:
        case "away":
            return "is not connected"
        case "outside-window":
            return f"waits for its training window until {clock(one['until'])}"
        case "excluded":
            return f"is excluded: {one['reason']}"
        case "stopped":
            return f"takes no further part ({one['code']})"
        case _:
            return "has not approved the study"


def _site(site: Facts) -> str:
    """Return what one site does, and until when, where that is known."""
    said = f"{site['site']}:{site['state']}"
    if site["state"] == "excluded":
        return f"{said} ({site['reason']})"
    if site["state"] == "waiting" and site.get("opens_at"):
        return f"{said} (window opens {clock(site['opens_at'])})"
    if site["state"] == "working" and site.get("due_at"):
        return f"{said} (due {clock(site['due_at'])})"
    return said + (f" ({site['code']})" if site.get("code") else "")
