"""`larrey study pause|halt|resume|close|withdraw`: orders signed with a person's key."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from larrey_protocol.errors import UsageError
from larrey_server.cli_build import STUDY, Subparsers, online, open_operator

__all__ = ["add"]

Facts = dict[str, Any]  # Any: JSON

_SAID = {
    "pause": "the open round is finished, then the study waits; undo: larrey study resume",
    "halt": "the open round is abandoned, sites stop at once; undo: larrey study resume",
    "resume": "the study goes on",
    "close": "deleted here; each site deletes and signs a receipt: larrey study watch",
}


def add(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verbs."""
    texts = {
        "pause": "finish the open round, then wait",
        "halt": "stop at once, at all sites; nothing of the open round is applied",
        "resume": "undo pause or halt",
    }
    for verb, text in texts.items():
        command = online(verbs, verb, text, _order, f"larrey study {verb} heart")
        command.add_argument("study", help=STUDY)
        command.set_defaults(verb=verb)
    close = online(
        verbs,
        "close",
        "end a study and delete it everywhere; final",
        _close,
        "larrey study close heart --yes",
    )
    close.add_argument("study", help=STUDY)
    close.add_argument("--yes", action="store_true", help="do not ask")
    withdraw = online(
        verbs,
        "withdraw",
        "address a site no more, and list every model that includes it",
        _withdraw,
        "larrey study withdraw heart alpha",
    )
    withdraw.add_argument("study", help=STUDY)
    withdraw.add_argument("site", help="name of the site")


def _order(parsed: argparse.Namespace) -> int:
    with open_operator(parsed) as operator:
        facts = operator.command(parsed.study, parsed.verb)
    return _tell(parsed, facts, _SAID[parsed.verb])


def _close(parsed: argparse.Namespace) -> int:
    if not parsed.yes:
        _confirm(parsed.study)
    with open_operator(parsed) as operator:
        facts = operator.command(parsed.study, "close")
    for entry in facts["deletions"]:
        sys.stderr.write(f"{entry['by']} deleted {entry['items']} files, {entry['bytes']} bytes\n")
    return _tell(parsed, facts, _SAID["close"])


def _withdraw(parsed: argparse.Namespace) -> int:
    with open_operator(parsed) as operator:
        facts = operator.command(parsed.study, "withdraw", parsed.site)
    if parsed.json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    for entry in facts["includes"]:
        last = "  the last one" if entry["is_last"] else ""
        sys.stdout.write(f"{entry['name']}  round {entry['round']}  {entry['model']}{last}\n")
    count = len(facts["includes"])
    sys.stderr.write(f"{parsed.site} is out; {count} models that exist include it\n")
    return 0


def _confirm(study: str) -> None:
    """Ask a person at a terminal.

    Raises:
        UsageError: ``not-confirmed``.
    """
    sys.stderr.write(f"closing {study} deletes its uploads, checkpoints and models for ever.\n")
    if not sys.stdin.isatty() or input("Type the study's name to go on: ").strip() != study:
        raise UsageError("not-confirmed", f"{study} was not closed", "Add --yes to mean it.")


def _tell(parsed: argparse.Namespace, facts: Facts, said: str) -> int:
    from larrey_server.cli_status import describe

    sys.stdout.write((json.dumps(facts) if parsed.json else describe(facts)) + "\n")
    sys.stderr.write(f"{said}\n")
    return 0
