"""The command `larrey demo`. Words for people on stderr; with ``--json`` a document on stdout."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

__all__ = ["command"]

_EXAMPLES = """examples:
  larrey demo                 train across four hospitals and write runs/heart/report.html
  larrey demo --keep          leave coordinator and sites running as a sandbox
  larrey demo --json          print the same facts as one JSON document

Everything happens on this machine, on public data, over mutual TLS on loopback.
"""


def command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the parser of `larrey`."""
    parser = commands.add_parser(
        "demo",
        help="train across four hospitals on this machine and show what happened",
        description="Train a heart-disease model across four real hospitals on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON on stdout")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="where runs go (default: runs)"
    )
    parser.add_argument(
        "--splits", type=int, default=20, help="repeated splits of the comparison (default: 20)"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from larrey_lab.demo.screen import Screen
    from larrey_lab.demo.story import tell

    screen = Screen()
    facts = tell(options.out, screen, splits=max(2, options.splits), keep=options.keep)
    if options.json:
        sys.stdout.write(json.dumps(facts.as_json()) + "\n")
    return 0
