"""`larrey study exclude|include|extend|retry`: what who is on call does about a running study."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from larrey_server.cli_build import STUDY, Subparsers, online, open_operator

__all__ = ["add"]

Facts = dict[str, Any]  # Any: JSON


def add(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verbs to ``larrey study``."""
    exclude = online(
        verbs,
        "exclude",
        "leave a site out until further notice",
        _exclude,
        'larrey study exclude heart beta --reason "sends nonsense since noon"',
    )
    exclude.add_argument("study", help=STUDY)
    exclude.add_argument("site", help="name of the site")
    exclude.add_argument("--reason", required=True, help="one line, for the record", metavar="TEXT")
    include = online(
        verbs,
        "include",
        "undo exclude, or ask a site again that declined or is left out as too slow",
        _include,
        "larrey study include heart beta",
    )
    include.add_argument("study", help=STUDY)
    include.add_argument("site", help="name of the site")
    extend = online(
        verbs, "extend", "give the open round more time", _extend, "larrey study extend heart 1800"
    )
    extend.add_argument("study", help=STUDY)
    extend.add_argument("seconds", help="whole seconds, up to a week")
    retry = online(
        verbs,
        "retry",
        "repeat the open round at once, or try again what paused for want of sites",
        _retry,
        "larrey study retry heart",
    )
    retry.add_argument("study", help=STUDY)
    for verb in (include, extend, retry):
        verb.add_argument("--reason", default="", help="one line, for the record", metavar="TEXT")


def _exclude(parsed: argparse.Namespace) -> int:
    site, study = parsed.site, parsed.study
    return _order(
        parsed,
        "exclude",
        site,
        f"{site} is asked no more, and what it sent to the open round does not count;"
        f" undo: larrey study include {study} {site}",
    )


def _include(parsed: argparse.Namespace) -> int:
    return _order(
        parsed, "include", parsed.site, f"{parsed.site} takes part from the next round on"
    )


def _extend(parsed: argparse.Namespace) -> int:
    return _order(
        parsed, "extend", parsed.seconds, f"the open round has {parsed.seconds} seconds more"
    )


def _retry(parsed: argparse.Namespace) -> int:
    return _order(
        parsed, "retry", "", "the same round begins again; who trained already sends that answer"
    )


def _order(parsed: argparse.Namespace, verb: str, subject: str, said: str) -> int:
    from larrey_server.cli_status import describe

    with open_operator(parsed) as operator:
        facts = operator.command(parsed.study, verb, subject, parsed.reason)
    sys.stdout.write((json.dumps(facts) if parsed.json else describe(facts)) + "\n")
    sys.stderr.write(f"{said}\n")
    return 0
