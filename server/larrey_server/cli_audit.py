"""`larrey audit …`: is the coordinator's trail whole, who did what, does a site's trail agree."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larrey_server.cli_build import Subparsers, group, online, open_operator, print_facts

if TYPE_CHECKING:
    from larrey_server.trail import Trail

__all__ = ["command"]

_MAX_EXPORT = 1 << 30


def command(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``audit`` and its verbs to the parser."""
    verbs = group(
        commands, "audit", "the coordinator's audit trail", "larrey audit verify --state state"
    )
    verify = online(
        verbs,
        "verify",
        "check the audit trail and every signed head",
        _verify,
        "larrey audit verify",
    )
    query = online(verbs, "query", "who did what, when", _query, "larrey audit query --actor ada")
    query.add_argument("--study", default="", help="digest or its first digits")
    query.add_argument("--actor", default="", help="only what this person or site did")
    query.add_argument("--action", default="", help="only this action, such as round-applied")
    query.add_argument("--from", dest="since", type=_day, default=0.0, help="day, 2026-01-31")
    query.add_argument("--to", dest="until", type=_day, default=float("inf"), help="day, left out")
    reconcile = online(
        verbs,
        "reconcile",
        "compare with a site's trail and name every difference",
        _reconcile,
        "larrey audit reconcile --site-trail trail.json",
    )
    reconcile.add_argument(
        "--site-trail", type=Path, required=True, metavar="FILE",
        help="written at the site by: larrey-site audit export --json",
    )  # fmt: skip
    for verb in (verify, query, reconcile):
        verb.add_argument(
            "--state", type=Path, metavar="DIR", help="read a state folder instead of asking"
        )


def _verify(parsed: argparse.Namespace) -> int:
    from larrey_server.trail import verify

    print_facts(verify(_trail(parsed), needs_seal=True), as_json=parsed.json)
    return 0


def _query(parsed: argparse.Namespace) -> int:
    from larrey_server.trail import query

    rows = query(
        _trail(parsed),
        study=parsed.study,
        actor=parsed.actor,
        action=parsed.action,
        since=parsed.since,
        until=parsed.until,
    )
    _print(rows, [_line(row) for row in rows], as_json=parsed.json)
    return 0


def _reconcile(parsed: argparse.Namespace) -> int:
    from larrey_protocol.errors import FileError
    from larrey_server.trail import reconcile

    try:
        with parsed.site_trail.open("rb") as file:
            export = json.loads(file.read(_MAX_EXPORT))
    except (OSError, ValueError) as error:
        raise FileError(
            "invalid-file",
            f"{parsed.site_trail} is not what a site exported",
            "Write it at the site: larrey-site audit export --json > trail.json",
        ) from error
    found = reconcile(_trail(parsed), export)
    lines = [
        f"{one.kind:<9} {one.what:<8} study {one.study[7:19]} round {one.round}"
        f" record {one.index}: {one.text}"
        for one in found
    ]
    _print([asdict(one) for one in found], lines, as_json=parsed.json)
    if not found:
        sys.stderr.write("both trails say the same\n")
    return 1 if found else 0


def _trail(parsed: argparse.Namespace) -> Trail:
    from larrey_server.trail import read_trail, told

    if parsed.state is None:
        with open_operator(parsed) as operator:
            return read_trail(operator.audit())
    from larrey_server.journal import Journal
    from larrey_server.seal import read_seal

    journal = Journal.look(parsed.state / "coordinator.db")
    try:
        return read_trail(told(journal, seal=read_seal(parsed.state)))
    finally:
        journal.close()


def _line(row: dict[str, Any]) -> str:  # Any: JSON
    at = dt.datetime.fromtimestamp(row["at"], dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"{row['seq']:>5}  {at}  {row['actor']:<16} {row['action']:<20} {row['study'][7:19]}"
        f" {row['round'] or ''} {row['code']} {row.get('about', '')}  {row.get('reason', '')}"
    ).rstrip()


def _print(rows: list[dict[str, Any]], lines: list[str], *, as_json: bool) -> None:  # Any: JSON
    sys.stdout.write(json.dumps(rows) + "\n" if as_json else "".join(f"{one}\n" for one in lines))


def _day(text: str) -> float:
    """Return the beginning of a day in UTC, in seconds since 1970."""
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a day such as 2026-01-31, found '{text}'"
        ) from None
