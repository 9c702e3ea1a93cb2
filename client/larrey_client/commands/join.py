"""`larrey-site join`: from an invitation to a node that can be started."""

from __future__ import annotations

import argparse
import getpass
import grp
import os
import re
import shutil
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from larrey_client.commands.build import Build, Json
from larrey_protocol.certificates import authority_fingerprint, replace_file
from larrey_protocol.enrolment import Admission, Invitation, read_record
from larrey_protocol.errors import FileError, Refusal, UsageError
from larrey_protocol.keys import fingerprint
from larrey_protocol.tomlfile import read_text

if TYPE_CHECKING:
    from larrey_client.joining import Home
    from larrey_client.settings import SiteSettings
    from larrey_client.site_files import Service

__all__ = ["add"]

_EXAMPLES = """examples:
  larrey-site join site.invite --dir /etc/larrey --data cohort.parquet
  larrey-site join site.invite --fingerprint ABCD-EFGH-IJKL-MNOP-QRST

Where mail is the only channel:
  larrey-site join --offline site.invite --out request.json
  larrey-site join --finish admission.json

A node that is a member already joins one more coordinator, with the same ledger:
  larrey-site join other.invite --dir /etc/larrey --membership north

Keys are made in the folder and never leave it. Before anything is sent, compare the consortium's
fingerprint by phone. A folder that joined before keeps its keys' names, settings and ledger.
"""


def add(build: Build) -> None:
    """Add the command."""
    parser = build.command("join", "join a consortium with its invitation", _join, _tell)
    parser.epilog = _EXAMPLES
    parser.set_defaults(needs_settings=False)
    parser.add_argument("invitation", type=Path, nargs="?", help="site.invite")
    parser.add_argument("--dir", type=Path, default=Path(), help="the node's folder (default: .)")
    parser.add_argument(
        "--membership", default="", help="add this coordinator to a node that joined one before",
        type=_membership, metavar="NAME",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="cohorts", metavar="FILE")
    parser.add_argument("--fingerprint", help="the consortium's, as it was read out by phone")
    parser.add_argument("--yes", action="store_true", help="the fingerprints were compared before")
    parser.add_argument("--offline", action="store_true", help="write the request for mailing")
    parser.add_argument("--out", type=Path, help="new file for the request", metavar="FILE")
    parser.add_argument("--finish", type=Path, help="admission that came by mail", metavar="FILE")


def _membership(text: str) -> str:
    """Return a name that may be a folder's, too."""
    if text and (text == "first" or not re.fullmatch(r"[a-z][a-z0-9-]{1,39}", text)):
        raise argparse.ArgumentTypeError("expected a lower-case name that is not 'first'")
    return text


def _join(_: SiteSettings, options: argparse.Namespace) -> Json:
    from larrey_client import joining

    home = joining.Home(options.dir, options.membership)
    _require_files(options.data)
    if options.finish is not None:
        invitation = joining.resume(home)
        where = str(options.finish)
        admission = read_record(read_text(options.finish).encode(), Admission, where)
        return _finish(home, invitation, admission, options)
    if options.invitation is None:
        raise UsageError(
            "invitation-missing", "expected an invitation, found none", "larrey-site join FILE"
        )
    if options.offline != (options.out is not None):
        raise UsageError(
            "bad-option", "--offline and --out FILE go together", "Give both, or neither."
        )
    invitation = joining.read_invitation(options.invitation, time.time())
    _compare(invitation, options)
    signed = joining.prepare(home, invitation, time.time())
    if options.offline:
        text = joining.mailed(invitation, signed).model_dump_json(indent=1) + "\n"
        _write_new(options.out, text)
        return {
            "site": invitation.site,
            "request": str(options.out),
            "dir": str(home.folder),
            "fingerprint": fingerprint(signed.signer),
            "again": f" --membership {options.membership}" if options.membership else "",
        }
    return _finish(home, invitation, joining.call(invitation, signed), options)


def _finish(
    home: Home, invitation: Invitation, admission: Admission, options: argparse.Namespace
) -> Json:
    from larrey_client import joining

    service = _service(home, invitation)
    own = joining.finish(home, invitation, admission, options.data, service)
    return {
        "site": invitation.site,
        "coordinator": invitation.address,
        "settings": str(home.settings),
        "unit": str(home.unit),
        "user": service.user,
        "fingerprint": own,
        "membership": options.membership,
    }


def _tell(value: Json) -> str:
    if "request" in value:
        return (
            f"Mail {value['request']} to the consortium; it holds no secret.\n"
            f"Read out this site's fingerprint by phone: {value['fingerprint']}\n"
            "When the answer has come: "
            f"larrey-site join --finish admission.json --dir {value['dir']}{value['again']}"
        )
    settings = value["settings"]
    if value["membership"]:
        return (
            f"{value['site']} is a member at {value['coordinator']}, too: {value['membership']}.\n"
            f"Read out this site's fingerprint by phone: {value['fingerprint']}\n"
            "Delete the invitation, restart the node, and let the people sign anew:\n"
            f"  larrey-site policy sign --key KEY --config {settings}\n"
            "Until then nothing runs here. Open the firewall, and IPAddressAllow= of the service,\n"
            "to this coordinator as well."
        )
    return (
        f"{value['site']} is a member at {value['coordinator']}.\n"
        f"Read out this site's fingerprint by phone: {value['fingerprint']}\n"
        f"Delete the invitation; declare data, people and policy in {settings}.\n"
        f"Start the node:     larrey-site run --config {settings}\n"
        f"Or as a service:    {value['unit']} runs as {value['user']}, who must own the folder\n"
        f"Sign the policy:    larrey-site policy sign --key KEY --config {settings}\n"
        f"How it is:          larrey-site status --config {settings}"
    )


def _compare(invitation: Invitation, options: argparse.Namespace) -> None:
    """Show what is to be compared by phone, and go on only if it was.

    Raises:
        Refusal: ``fingerprint-differs`` or ``not-compared``.
    """
    from larrey_client.joining import require_compared

    shown = fingerprint(invitation.consortium)
    authority = authority_fingerprint(invitation.authority.encode())
    sys.stderr.write(f"site         {invitation.site} at {invitation.address}\n")
    sys.stderr.write(f"consortium   {shown}   compare by phone\n")
    sys.stderr.write(f"authority    {authority}   transport only\n")
    if options.fingerprint:
        require_compared(invitation, options.fingerprint)
    elif not options.yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "not-compared",
                "expected --fingerprint, --yes or a terminal, found none",
                f"larrey-site join {options.invitation} --fingerprint XXXX-XXXX-XXXX-XXXX-XXXX",
            )
        sys.stderr.write("Does the consortium read out the same fingerprint? Type yes: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() != "yes":
            raise Refusal("not-compared", "the fingerprints were not compared", "Nothing was sent.")


def _require_files(data: list[Path]) -> None:
    for path in data:
        if not path.exists():
            raise FileError("missing-file", f"expected data at {path}, found none", "Check --data.")


def _write_new(path: Path, text: str) -> None:
    if path.exists():
        raise UsageError("file-exists", f"{path} exists already", "Choose another --out.")
    replace_file(path, text.encode(), mode=0o644)


def _service(home: Home, invitation: Invitation) -> Service:
    """Return this machine's service: its owner runs it, the coordinator's addresses are open."""
    from larrey_client.site_files import Service

    folder = home.folder.resolve()
    program = shutil.which(sys.argv[0]) or shutil.which("larrey-site") or "larrey-site"
    is_root = os.geteuid() == 0  # then the service has a user of its own
    return Service(
        program=str(Path(program).absolute()),
        config=folder / "site.toml",
        identity=folder / "identity",
        state=folder / "state",
        user="larrey" if is_root else getpass.getuser(),
        group="larrey" if is_root else grp.getgrgid(os.getegid()).gr_name,
        addresses=_addresses(invitation.address),
    )


def _addresses(address: str) -> tuple[str, ...]:
    """Return the addresses outside this machine, none where the name is not known here."""
    host, _, port = address.rpartition(":")
    found: list[str] = []
    with suppress(OSError):
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, int(port))]
    return tuple(sorted({ip for ip in found if not ip.startswith("127.") and ip != "::1"}))
