"""`larrey-site doctor`: what would stop this node or its training, told before it does."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from larrey_client.commands.build import Build, Json
from larrey_client.settings import SiteSettings

__all__ = ["add"]


def add(build: Build) -> None:
    """Add the command."""
    doctor = build.command(
        "doctor",
        "look for what would stop the node or its training; changes nothing",
        _doctor,
        lambda value: str(value["text"]),
    )
    doctor.epilog = (
        "examples:\n  larrey-site doctor --config site.toml\n"
        "  larrey-site doctor --lang fr --report doctor.txt --config site.toml\n\n"
        "Takes less than 30 s. Exit status 0: nothing failed, there may be warnings; 1: something\n"
        "failed; 2: it could not begin. Every check: docs/doctor.md.\n"
    )
    lang = "fr" if os.environ.get("LANG", "").lower().startswith("fr") else "en"
    doctor.add_argument("--lang", choices=("en", "fr"), default=lang, help="language")
    doctor.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write the result to a new file to mail: no secrets, no rows",
    )


def _doctor(settings: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client.doctor import look
    from larrey_protocol.checkup import as_json, exit_status, tell
    from larrey_protocol.keys import write_private
    from larrey_protocol.newfile import require_new

    if options.report:
        require_new(options.report)
    now = time.time()
    findings = look(settings, now)
    options.exit_status = exit_status(findings)
    text = tell(findings, options.lang)
    about = {
        "site": settings.site.name,
        "software": _version(),
        "at": f"{dt.datetime.fromtimestamp(now, dt.UTC):%Y-%m-%d %H:%M} UTC",
    }
    if options.report:
        head = f"larrey-site doctor   {'   '.join(about.values())}\n\n"
        write_private(options.report, (head + text + "\n").encode())
    return as_json(findings, **about) if options.json else {"text": text}


def _version() -> str:
    for name in ("larrey", "larrey-node"):
        try:
            return f"larrey {version(name)}"
        except PackageNotFoundError:
            continue
    return "larrey"
