"""What the modules of `larrey`'s commands share: how a command is declared, and how it prints."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from larrey_server.operator import Operator

__all__ = [
    "STUDY",
    "Run",
    "Subparsers",
    "add_foreign",
    "add_operator",
    "group",
    "online",
    "open_operator",
    "print_facts",
    "print_table",
    "verb",
]

STUDY = "digest, its first twelve digits, or name"
_OPERATOR = "operator file (default: $LARREY_OPERATOR)"

Subparsers = argparse._SubParsersAction
Run = Callable[[argparse.Namespace], int]


def group(
    commands: Subparsers[argparse.ArgumentParser], name: str, text: str, example: str
) -> Subparsers[argparse.ArgumentParser]:
    """Add a subject of commands and return where its verbs go."""
    subject = commands.add_parser(
        name,
        help=text,
        epilog=f"example:\n  {example}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs: Subparsers[argparse.ArgumentParser] = subject.add_subparsers(
        title="verbs", metavar="VERB", required=True
    )
    return verbs


def verb(
    verbs: Subparsers[argparse.ArgumentParser], name: str, text: str, run: Run, examples: str
) -> argparse.ArgumentParser:
    """Add a verb; ``examples`` is printed under its help."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def online(
    verbs: Subparsers[argparse.ArgumentParser], name: str, text: str, run: Run, example: str
) -> argparse.ArgumentParser:
    """Add a verb that speaks to the coordinator; ``example`` is the whole command up to it."""
    parser = verb(verbs, name, text, run, f"example:\n  {example} --operator operator.toml\n")
    add_operator(parser)
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    return parser


def add_foreign(commands: Subparsers[argparse.ArgumentParser], group: str) -> None:
    """Add other packages' commands, the entry points of ``group`` that take ``commands``.

    One whose libraries are not installed is left out.
    """
    for entry in sorted(entry_points(group=group), key=lambda found: found.name):
        with suppress(ModuleNotFoundError):
            entry.load()(commands)


def add_operator(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the operator file."""
    parser.add_argument("--operator", type=Path, help=_OPERATOR, metavar="FILE")


def open_operator(parsed: argparse.Namespace) -> Operator:
    """Return a connection to the coordinator that the command names."""
    from larrey_server.operator import Operator
    from larrey_server.operator_renewal import require_current
    from larrey_server.settings import load_operator

    settings = load_operator(parsed.operator)
    if warning := require_current(settings, dt.datetime.now(dt.UTC)):
        sys.stderr.write(f"{warning}\n")
    return Operator(settings)


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:  # Any: JSON
    """Print one value a line, or JSON; what is empty is left out for people."""
    if as_json:
        sys.stdout.write(json.dumps(dict(facts)) + "\n")
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            text = ", ".join(map(str, value)) if isinstance(value, list | dict) else _short(value)
            sys.stdout.write(f"{name:<{width}}  {text}\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print one row a line under a head, each column as wide as its widest cell; nothing for none.

    An empty cell is a dash, so that a line splits into as many words as the table has columns.
    """
    if not rows:
        return
    lines = [tuple(head), *(tuple(str(cell) or "-" for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
