"""`larrey permit …`: state, change and revoke the permits under which studies run."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larrey_server.cli_build import (
    Subparsers,
    group,
    online,
    open_operator,
    print_facts,
    print_table,
    verb,
)

if TYPE_CHECKING:
    from larrey_protocol.permit import Permit
    from larrey_server.operator import Operator
    from larrey_server.permits import Version

__all__ = ["command"]

_NEW = """example:
  larrey permit new --out permit.toml

Writes a commented permit to fill in; larrey permit sign refuses a value that was left as it was.
"""
_REFERENCE = "the authority's number, e.g. FR/2026/0001"


def command(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``permit`` and its verbs to the parser."""
    verbs = group(
        commands,
        "permit",
        "state, change and revoke permits",
        "larrey permit new --out permit.toml",
    )
    new = verb(verbs, "new", "write a commented permit to fill in", _new, _NEW)
    new.add_argument("--out", type=Path, required=True, help="new file", metavar="FILE")
    for name, text, run in (
        ("sign", "sign the first version of a permit and send it", _sign),
        ("amend", "sign the next version of a permit and send it", _amend),
    ):
        online(verbs, name, text, run, f"larrey permit {name} permit.toml").add_argument(
            "file", type=Path, help="permit.toml"
        )
    for name, text, run in (
        ("revoke", "end a permit for good; its studies are halted", _revoke),
        ("history", "show every version of a permit", _history),
    ):
        online(verbs, name, text, run, f"larrey permit {name} FR/2026/0001").add_argument(
            "reference", help=_REFERENCE
        )
    online(verbs, "list", "show all permits as they stand today", _list, "larrey permit list")


def _new(parsed: argparse.Namespace) -> int:
    from larrey_protocol.newfile import require_new
    from larrey_server.permits import TEMPLATE

    require_new(parsed.out)
    with parsed.out.open("x", encoding="utf-8") as file:
        file.write(TEMPLATE)
    sys.stderr.write(f"fill in {parsed.out}, then: larrey permit sign {parsed.out}\n")
    return 0


def _sign(parsed: argparse.Namespace) -> int:
    from larrey_server.permits import first

    return _state(parsed, first)


def _amend(parsed: argparse.Namespace) -> int:
    from larrey_server.permits import amended

    return _state(parsed, amended)


def _state(
    parsed: argparse.Namespace, follow: Callable[[Permit, Sequence[Version]], Permit]
) -> int:
    """Sign and send the version that a file asks for after those that are known."""
    from larrey_server.permits import load_filled, opened, require_known
    from larrey_server.vouching import newest

    wanted = load_filled(parsed.file)
    with open_operator(parsed) as operator:
        permit = follow(wanted, opened(operator.permits(wanted.reference)))
        require_known(permit, newest(operator.rosters(), operator.consortium())[1])
        return _send(operator, permit, parsed)


def _revoke(parsed: argparse.Namespace) -> int:
    from larrey_server.permits import opened, revoked

    with open_operator(parsed) as operator:
        versions = opened(operator.permits(parsed.reference))
        return _send(operator, revoked(parsed.reference, versions, _today()), parsed)


def _history(parsed: argparse.Namespace) -> int:
    from larrey_protocol.errors import Refusal

    with open_operator(parsed) as operator:
        rows = _rows(operator, parsed.reference)
    if not rows:
        raise Refusal(
            "permit-unknown", f"no permit {parsed.reference} is known", "See: larrey permit list"
        )
    return _show(rows, parsed)


def _list(parsed: argparse.Namespace) -> int:
    with open_operator(parsed) as operator:
        rows = [row for row in _rows(operator, "") if row["stands"] != "REPLACED"]
    if not rows:
        sys.stderr.write("no permits yet; begin with: larrey permit new --out permit.toml\n")
    return _show(rows, parsed)


def _send(operator: Operator, permit: Permit, parsed: argparse.Namespace) -> int:
    from larrey_protocol.signed import sign

    digest = operator.put_permit(sign(permit, operator.signer.key))
    facts = {
        "reference": permit.reference,
        "version": permit.permit.version,
        "state": permit.permit.state,
        "digest": digest,
    }
    print_facts(facts, as_json=parsed.json)
    if permit.permit.state == "REVOKED":
        sys.stderr.write("what runs under it is halted; every site refuses it from now on\n")
    else:
        sys.stderr.write(
            "each site's data protection officer countersigns this version, and each site approves"
            " its studies anew\n"
            if permit.permit.version > 1
            else "each site's data protection officer countersigns this version\n"
        )
    return 0


def _rows(operator: Operator, reference: str) -> list[dict[str, Any]]:  # Any: JSON
    """Return the history of one permit, of all without a reference."""
    from larrey_server.permits import history, opened
    from larrey_server.vouching import newest

    key, roster = newest(operator.rosters(), operator.consortium())
    versions = opened(operator.permits(reference))
    references = dict.fromkeys(permit.reference for _, permit in versions)
    return [
        row
        for name in references
        for row in history([v for v in versions if v[1].reference == name], roster, key, _today())
    ]


def _show(rows: list[dict[str, Any]], parsed: argparse.Namespace) -> int:  # Any: JSON
    if parsed.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    names = ("reference", "version", "state", "stands", "valid_from", "valid_until", "signed_by")
    head = ("PERMIT", "VERSION", "SIGNED AS", "TODAY", "FROM", "UNTIL", "SIGNED BY", "DIGEST")
    print_table(head, [[*(row[name] for name in names), row["digest"][7:19]] for row in rows])
    return 0


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
