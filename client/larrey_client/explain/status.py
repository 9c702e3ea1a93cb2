"""How a node and its studies are, a line each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from larrey_client.explain.plain import plain

__all__ = ["explain_isolation", "explain_status", "explain_studies"]

Json = dict[str, Any]  # Any: JSON values are recursive


def explain_studies(views: Sequence[Json]) -> str:
    """Return one line a study."""
    if not views:
        return "No study was proposed to this site yet."
    head = f"{'STUDY':24} {'VERSION':8} {'STATE':10} {'DATASET':16} {'DIGEST':14} {'CODE':22}"
    lines = [f"{head} SIGNATURES"]
    for view in views:
        digest = view["digest"].removeprefix("sha256:")[:12]
        lines.append(
            f"{view['name']:24} {view['version']:<8} {view['state']:10} {view['dataset'] or '-':16}"
            f" {digest:14} {view['code'] or '-':22} {_signatures(view)}"
        )
    return "\n".join(lines)


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
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status["studies"].items()))
    return "\n".join(
        [
            f"{status['site']}: {connection}",
            f"  coordinator {status['coordinator']}",
            f"  certificate {status['certificate_days']} days left",
            f"  studies     {counts or 'none'}",
            f"  epsilon     {'exact' if status['epsilon_ready'] else 'being computed'} in receipts",
            f"  ledger      {status['ledger_head'][:24]}",
            f"  audit       {status['audit_head'][:24]}",
            f"  witness     {_witness(status['witness'])}",
            *explain_isolation(status["isolation"]),
            *explain_stops(status["stopped"]),
        ]
    )


def _witness(kinds: Sequence[str]) -> str:
    """Return what would tell that an old copy of the state was put back."""
    if "file" in kinds:
        return " and ".join(kinds)
    others = "the coordinator and other sites alone would tell of a restored old copy"
    return f"{kinds[0]}, not read at start: {others}" if kinds else f"none: {others}"


def explain_stops(stops: Sequence[Json]) -> list[str]:
    """Return what this site's people paused or halted, who and since when."""
    return [
        f"  {stop['stopped']:<11} {plain(stop['study'])} by {plain(stop['by'])} since"
        f" {dt.datetime.fromtimestamp(stop['at'], dt.UTC).isoformat(' ', 'minutes')}"
        for stop in stops
    ]


def explain_isolation(isolation: Json) -> list[str]:
    """Return how the process that trains is kept apart, and what this machine cannot enforce."""
    stands = ", ".join(isolation["stands"]) or "not known yet"
    missing = [f"{name} ({plain(why)})" for name, why in isolation["missing"].items()]
    lines = [f"  isolation   {stands}"]
    return [*lines, f"              not enforced here: {', '.join(missing)}"] if missing else lines
