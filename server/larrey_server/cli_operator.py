"""`larrey operator …`: an operator's certificate, renewed in time or issued anew after its end."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from pathlib import Path

from larrey_server.cli_build import Subparsers, group, online, open_operator, print_facts, verb

__all__ = ["command"]

_RENEW = """example:
  larrey operator renew --operator operator.toml

Puts the next certificate, for the same key and good for 365 days, in the place of the present one.
Every command warns when less than 30 days are left. Once it ended, nothing can be asked with it:
then who administers the coordinator runs, on its machine, larrey operator reissue.
"""
_REISSUE = """example:
  larrey operator reissue operator --config coordinator.toml --out operator.crt

For an operator whose certificate ended. Needs the authority's key, [identity] authority_key; the
coordinator may run. The file is no secret: send it to the operator, who puts it in the place of
[identity] certificate of operator.toml. The key, and coordinator.toml, stay as they are. To end an
operator's access, take the entry out of coordinator.toml and start the coordinator again.
"""


def command(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``operator`` and its verbs to the parser."""
    verbs = group(commands, "operator", "the operator's certificate", "larrey operator renew")
    renew = online(
        verbs, "renew", "renew the operator's certificate", _renew, "larrey operator renew"
    )
    renew.epilog = _RENEW
    text = "issue a listed operator's certificate anew, on the coordinator's machine"
    reissue = verb(verbs, "reissue", text, _reissue, _REISSUE)
    reissue.add_argument("name", metavar="NAME", help="as coordinator.toml lists the operator")
    reissue.add_argument(
        "--config",
        type=Path,
        default=Path("coordinator.toml"),
        help="the coordinator's settings file (default: coordinator.toml)",
        metavar="FILE",
    )
    reissue.add_argument("--out", type=Path, required=True, help="new file", metavar="FILE")
    reissue.add_argument("--json", action="store_true", help="print JSON on stdout")


def _renew(parsed: argparse.Namespace) -> int:
    from larrey_protocol.tomlfile import validate
    from larrey_server.operator_renewal import Renewed, install
    from larrey_server.settings import load_operator

    with open_operator(parsed) as operator:
        answer = operator.members({"verb": "renew-operator"})
    settings = load_operator(parsed.operator)
    ends = install(settings, validate(answer, Renewed, "the coordinator's answer"))
    facts = {"certificate": str(settings.identity.certificate), "until": _day(ends)}
    print_facts(facts, as_json=parsed.json)
    return 0


def _reissue(parsed: argparse.Namespace) -> int:
    from larrey_server.operator_renewal import reissue
    from larrey_server.settings import load_coordinator

    settings = load_coordinator(parsed.config)
    ends = reissue(settings, parsed.name, parsed.out, dt.datetime.now(dt.UTC))
    facts = {"operator": parsed.name, "out": str(parsed.out), "until": _day(ends)}
    print_facts(facts, as_json=parsed.json)
    sys.stderr.write("no secret: send it to the operator, who replaces their certificate by it\n")
    return 0


def _day(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d")
