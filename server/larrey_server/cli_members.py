"""`larrey init`, `larrey invite` and `larrey sites …`: from nothing to hospitals that joined."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from larrey_protocol.errors import Refusal, UsageError
from larrey_server.cli_build import (
    Subparsers,
    group,
    online,
    open_operator,
    print_facts,
    print_table,
    verb,
)

__all__ = ["command"]

_INIT = """examples:
  larrey init consortium --address coordinator.example.org:9443
  larrey init trial

Makes three folders that belong on three machines: coordinator/, operator/ and consortium/. The last
one holds the root of trust: move it to a machine that is offline. Nothing is overwritten.

Asks for a passphrase of the consortium's key; LARREY_PASSPHRASE_FILE names a file of mode 0600 that
holds it. With neither a terminal nor such a file the key is not encrypted.
"""
_INVITE = """examples:
  larrey invite st-mary --operator operator.toml --out st-mary.invite
  larrey invite st-mary --operator operator.toml --out st-mary.invite --days 7

The invitation is a secret, good for one join; without --out it goes to stdout, which must not be a
terminal. Send it over a channel of its own, and read out the consortium's fingerprint by phone.
"""
_ADMIT = "larrey sites admit request.json --out admission.json"

Facts = dict[str, Any]  # Any: JSON


def command(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``init``, ``invite`` and ``sites`` to the parser."""
    init = verb(commands, "init", "make the folders of a new consortium", _init, _INIT)
    init.add_argument("folder", type=Path, help="new folder")
    init.add_argument(
        "--address",
        default="localhost:9443",
        help="where hospitals reach the coordinator (default: localhost:9443)",
        metavar="HOST:PORT",
    )
    init.add_argument(
        "--host", nargs="+", default=[], help="further names of the server", metavar="NAME"
    )
    invite = online(commands, "invite", "invite a hospital", _invite, "larrey invite st-mary")
    invite.epilog = _INVITE
    invite.add_argument("site", help="name for the hospital: lower case, digits, hyphens")
    invite.add_argument("--days", type=float, default=3.0, help="how long it is good (default: 3)")
    invite.add_argument("--out", type=Path, help="new file (default: stdout)", metavar="FILE")
    invite.add_argument("--address", help="another address for this hospital", metavar="HOST:PORT")
    sites = group(
        commands, "sites", "who is a member", "larrey sites list --operator operator.toml"
    )
    online(sites, "list", "show all sites", _list, "larrey sites list")
    show = online(sites, "show", "show one site", _show, "larrey sites show st-mary")
    show.add_argument("site", help="name")
    revoke = online(
        sites, "revoke", "end a membership at once", _revoke, "larrey sites revoke st-mary"
    )
    revoke.add_argument("site", help="name")
    admit = online(sites, "admit", "admit a hospital whose request came by mail", _admit, _ADMIT)
    admit.add_argument("request", type=Path, help="request.json")
    admit.add_argument("--out", type=Path, required=True, help="new file", metavar="FILE")


def _init(parsed: argparse.Namespace) -> int:
    from larrey_protocol.passphrase import PASSPHRASE_FILE, new_passphrase
    from larrey_server.setup import create

    is_asked = sys.stdin.isatty() or PASSPHRASE_FILE in os.environ
    passphrase = new_passphrase("New passphrase of the consortium's key: ") if is_asked else None
    now = dt.datetime.now(dt.UTC)
    made = create(parsed.folder, parsed.address, parsed.host, now=now, passphrase=passphrase)
    locked = "behind your passphrase" if made.has_passphrase else "WITHOUT a passphrase"
    sys.stdout.write(
        f"consortium   {made.consortium_fingerprint}   read it out by phone\n"
        f"authority    {made.authority_fingerprint}   transport only\n"
        f"\n"
        f"{made.consortium} holds the root of trust, {locked}. It belongs on another, offline\n"
        f"machine: move it there, and keep a copy in a safe.\n"
        f"\n"
        f"Start the coordinator:  larrey serve --config {made.coordinator}\n"
        f"Invite a hospital:      larrey invite SITE --operator {made.operator} > site.invite\n"
        f"Draft the roster:       larrey roster draft --operator {made.operator} > roster.toml\n"
    )
    return 0


def _invite(parsed: argparse.Namespace) -> int:
    from larrey_protocol.certificates import authority_fingerprint, make_request
    from larrey_protocol.enrolment import Invitation
    from larrey_protocol.keys import fingerprint, write_private
    from larrey_protocol.newfile import require_new
    from larrey_server.settings import load_operator
    from larrey_server.signers import consortium_key

    if parsed.out is None and sys.stdout.isatty():
        raise UsageError(
            "secret-on-terminal",
            "an invitation is a secret and is not shown on a terminal",
            f"larrey invite {parsed.site} > {parsed.site}.invite, or --out FILE",
        )
    if parsed.out is not None:
        require_new(parsed.out)
    settings = load_operator(parsed.operator)
    consortium = consortium_key(settings)
    request, key = make_request(f"invitation {parsed.site}")
    asked = {"site": parsed.site, "days": parsed.days, "request": request.decode()}
    with open_operator(parsed) as operator:
        made = operator.members({"verb": "invite", **asked})
    _require_same(consortium, made["consortium"])
    invitation = Invitation(
        invitation=made["invitation"],
        site=parsed.site,
        address=parsed.address or settings.coordinator.address,
        authority=made["authority"],
        consortium=consortium,
        certificate=made["certificate"],
        key=key.decode(),
        expires_at=made["expires_at"],
    )
    text = invitation.model_dump_json(indent=1) + "\n"
    if parsed.out is not None:
        write_private(parsed.out, text.encode())
    else:
        _close_to_others(sys.stdout.fileno())
        sys.stdout.write(text)
    authority = authority_fingerprint(invitation.authority.encode())
    sys.stderr.write(
        f"invitation of {parsed.site}, good until {_day(invitation.expires_at)}; it is a secret\n"
        f"consortium   {fingerprint(consortium)}   read it out by phone\n"
        f"authority    {authority}   transport only\n"
    )
    return 0


def _list(parsed: argparse.Namespace) -> int:
    with open_operator(parsed) as operator:
        sites = operator.members({"verb": "list"})["sites"]
    if parsed.json:
        sys.stdout.write(json.dumps(sites) + "\n")
        return 0
    rows = [
        (
            site["site"],
            site["state"],
            _day(site["expires_at"]) if site["expires_at"] else "",
            site["fingerprint"],
        )
        for site in sites
    ]
    print_table(("SITE", "STATE", "UNTIL", "FINGERPRINT"), rows)
    if not sites:
        sys.stderr.write("no sites yet; invite one: larrey invite SITE --out site.invite\n")
    return 0


def _show(parsed: argparse.Namespace) -> int:
    return _one(parsed, "show")


def _revoke(parsed: argparse.Namespace) -> int:
    return _one(parsed, "revoke")


def _one(parsed: argparse.Namespace, name: str) -> int:
    with open_operator(parsed) as operator:
        facts = operator.members({"verb": name, "site": parsed.site})
    if not parsed.json:
        for moment in ("since", "expires_at"):
            facts[moment] = _day(facts[moment]) if facts[moment] else ""
        known = ("site", "state", "since", "expires_at", "fingerprint", "key")
        facts = {name: facts[name] for name in (*known, *facts) if name in facts}
    print_facts(facts, as_json=parsed.json)
    return 0


def _admit(parsed: argparse.Namespace) -> int:
    from larrey_protocol.certificates import replace_file
    from larrey_protocol.enrolment import Admission, MailedRequest, read_record
    from larrey_protocol.newfile import require_new
    from larrey_protocol.tomlfile import read_text

    require_new(parsed.out)
    mailed = read_record(read_text(parsed.request).encode(), MailedRequest, str(parsed.request))
    with open_operator(parsed) as operator:
        answer = operator.members({"verb": "admit", "request": mailed.model_dump(mode="json")})
    admission = Admission.model_validate(answer["admission"])
    text = admission.model_dump_json(indent=1) + "\n"
    replace_file(parsed.out, text.encode(), mode=0o644)
    facts = {"site": admission.site, "fingerprint": answer["fingerprint"], "out": str(parsed.out)}
    print_facts(facts, as_json=parsed.json)
    if not parsed.json:
        sys.stderr.write(f"Compare the fingerprint with {admission.site} by phone; then mail it.\n")
    return 0


def _require_same(ours: str, theirs: str) -> None:
    """Refuse to pass on an invitation to a coordinator that serves another consortium."""
    if ours != theirs:
        raise Refusal(
            "consortium-differs",
            "the coordinator serves a consortium with another key than the operator file's",
            "Compare [consortium] key in operator.toml and coordinator.toml by phone.",
        )


def _close_to_others(descriptor: int) -> None:
    """Let only its owner read the file that stdout was redirected to."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)


def _day(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M")
