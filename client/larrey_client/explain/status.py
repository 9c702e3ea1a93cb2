"""How a node and its studies are, a line each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from larrey_client.explain.plain import plain, table
from larrey_client.settings import FIRST

__all__ = ["explain_isolation", "explain_status", "explain_studies", "explain_witness"]

Json = dict[str, Any]  # Any: JSON values are recursive


def explain_studies(views: Sequence[Json]) -> str:
    """Return one line a study."""
    if not views:
        return "No study was proposed to this site yet."
    rows = [
        (
            view["name"],
            view["version"],
            _short(view["digest"]),
            "outdated" if view["signatures"]["is_outdated"] else view["state"],
            view["dataset"] or "",
            view["code"],
            _signatures(view),
        )
        for view in views
    ]
    head = ("STUDY", "VERSION", "DIGEST", "STATE", "DATASET", "CODE", "SIGNATURES")
    memberships = [str(view.get("membership", FIRST)) or "none any more" for view in views]
    if set(memberships) == {FIRST}:
        return table(head, rows)
    named = [(*row, name) for row, name in zip(rows, memberships, strict=True)]
    return table((*head, "MEMBERSHIP"), named)


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _signatures(view: Json) -> str:
    """Return e.g. ``1 of 2 signatures (dpo missing)``; a dash where none is asked for any more."""
    signed = view["signatures"]
    if view["state"] not in {"waiting", "approved"}:
        return "-"
    missing = f" ({', '.join(signed['missing'])} missing)" if signed["missing"] else ""
    return f"{len(signed['signed'])} of {len(signed['needed'])} signatures{missing}"


def explain_status(status: Json) -> str:
    """Return how a running node is."""
    connection = "connected" if status["is_connected"] else f"not connected: {status['trouble']}"
    if status["has_left"]:
        connection = "left its coordinator; nothing runs here any more"
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status["studies"].items()))
    return "\n".join(
        [
            f"{status['site']}: {connection}",
            f"  coordinator {status['coordinator']}",
            *_memberships(status.get("memberships", ())),
            f"  certificate {status['certificate_days']} days left",
            f"  policy      {_policy(status['policy'])}",
            f"  studies     {counts or 'none'}",
            *_work(status.get("at_work", ())),
            *([f"  incidents   {status['incidents']} open"] if status["incidents"] else ()),
            f"  epsilon     {'exact' if status['epsilon_ready'] else 'being computed'} in receipts",
            f"  ledger      {status['ledger_head'][:24]}",
            f"  audit       {status['audit_head'][:24]}",
            f"  training    {_hours(status['windows'])}",
            f"  witness     {explain_witness(status['witness'])}",
            *explain_isolation(status["isolation"]),
            *explain_stops(status["stopped"]),
        ]
    )


def _work(tasks: Sequence[Json]) -> list[str]:
    """Return what is fetched, trained or sent now, a line a study."""
    return [
        f"  at work     {_short(plain(task['study']))} round {task['round']} {plain(task['phase'])}"
        for task in tasks
    ]


def _memberships(connections: Sequence[Json]) -> list[str]:
    """Return how each connection is, where there are several."""
    if len(connections) < 2:
        return []
    return [
        f"  member      {one['name']} at {one['coordinator']}: {_how(one)}" for one in connections
    ]


def _how(one: Json) -> str:
    if one["has_left"]:
        return "left"
    days = f"certificate {one['certificate_days']} days left"
    return f"{'connected' if one['is_connected'] else 'not connected: ' + one['trouble']}, {days}"


def _hours(windows: Json) -> str:
    """Return when training may begin, on the hospital's clock."""
    if not windows["windows"]:
        return "at any hour"
    zone = f" {windows['timezone']}" if windows["timezone"] else ""
    hours = f"{', '.join(windows['windows'])}{zone}"
    return f"{hours}; begins {windows['opens']}" if windows["opens"] else f"{hours}; now"


def _policy(policy: Json) -> str:
    if policy["is_in_effect"]:
        return f"version {policy['version']}, in effect"
    missing = f", {' and '.join(policy['missing'])} must sign" if policy["missing"] else ""
    return f"version {policy['version']}, NOT in effect{missing}; see: larrey-site policy show"


def explain_witness(kinds: Sequence[str]) -> str:
    """Return what would tell that an old copy of the state was put back."""
    if "file" in kinds:
        return " and ".join(kinds)
    others = "the coordinator and other sites alone would tell of a restored old copy"
    return f"{kinds[0]}, not read at start: {others}" if kinds else f"none: {others}"


def explain_stops(stops: Sequence[Json]) -> list[str]:
    """Return what this site's people paused or halted, who and since when."""
    return [
        f"  {stop['stopped']:<11} {_short(plain(stop['study']))} by {plain(stop['by'])} since"
        f" {dt.datetime.fromtimestamp(stop['at'], dt.UTC):%Y-%m-%d %H:%M} UTC"
        for stop in stops
    ]


def explain_isolation(isolation: Json) -> list[str]:
    """Return how the process that trains is kept apart, and what this machine cannot enforce."""
    stands = ", ".join(isolation["stands"]) or "not known yet"
    missing = [f"{name} ({plain(why)})" for name, why in isolation["missing"].items()]
    lines = [f"  isolation   {stands}"]
    return [*lines, f"              not enforced here: {', '.join(missing)}"] if missing else lines
