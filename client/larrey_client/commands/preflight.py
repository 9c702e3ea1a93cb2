"""`larrey-site preflight`: what would stop this node or its training, told before it does."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

from larrey_client.commands.build import Build, Json
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the command."""
    build.command(
        "preflight",
        "look for what would stop the node or its training; changes nothing",
        _preflight,
        _tell,
    )


def _preflight(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.preflight import CHECKS, is_ready, judge
    from larrey_client.preflight_facts import measure

    findings = judge(measure(settings, time.time()))
    options.exit_status = 0 if is_ready(findings) else 1
    return {
        "is_ready": is_ready(findings),
        "checks": [
            {
                "name": check.name,
                "title": check.title,
                "found": [asdict(found) for found in findings if found.check == check.name],
            }
            for check in CHECKS
        ],
    }


def _tell(value: Json) -> str:
    lines = []
    for check in value["checks"]:
        levels = {found["level"] for found in check["found"]}
        mark = "FAIL" if "fail" in levels else "warn" if levels else "ok"
        lines.append(f"{mark:5} {check['title']}")
        for found in check["found"]:
            lines += [f"      {found['message']} [{found['code']}]", f"      {found['remedy']}"]
    lines.append("ready" if value["is_ready"] else "not ready")
    return "\n".join(lines)
