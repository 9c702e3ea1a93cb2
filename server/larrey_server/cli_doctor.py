"""`larrey doctor`: what would stop the coordinator, told before it does."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from larrey_server.cli_build import Subparsers, verb

__all__ = ["command"]

_EXAMPLES = """examples:
  larrey doctor --config coordinator.toml
  larrey doctor --lang fr --report doctor.txt --config coordinator.toml

Runs on the coordinator's machine, in less than 30 s. Exit status 0: nothing failed, there may be
warnings; 1: something failed; 2: it could not begin. Every check: docs/doctor.md.
"""


def command(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``doctor`` to the parser."""
    text = "look for what would stop the coordinator; changes nothing"
    parser = verb(commands, "doctor", text, _doctor, _EXAMPLES)
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("coordinator.toml"),
        help="the coordinator's settings file (default: coordinator.toml)",
        metavar="FILE",
    )
    lang = "fr" if os.environ.get("LANG", "").lower().startswith("fr") else "en"
    parser.add_argument("--lang", choices=("en", "fr"), default=lang, help="language")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write the result to a new file to mail: no secrets",
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")


def _doctor(parsed: argparse.Namespace) -> int:
    from larrey_protocol.checkup import as_json, exit_status, tell
    from larrey_protocol.keys import write_private
    from larrey_protocol.newfile import require_new
    from larrey_server.doctor import look
    from larrey_server.settings import load_coordinator

    if parsed.report:
        require_new(parsed.report)
    now = time.time()
    findings = look(load_coordinator(parsed.config), now)
    text = tell(findings, parsed.lang) + "\n"
    about = {
        "software": f"larrey {version('larrey')}",
        "at": f"{dt.datetime.fromtimestamp(now, dt.UTC):%Y-%m-%d %H:%M} UTC",
    }
    if parsed.report:
        head = f"larrey doctor   {'   '.join(about.values())}\n\n"
        write_private(parsed.report, (head + text).encode())
    said = json.dumps(as_json(findings, **about)) + "\n" if parsed.json else text
    sys.stdout.write(said)
    return exit_status(findings)
