"""`larrey person|roster|consortium …`: who signs for the consortium, and whom it vouches for."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from larrey_server.cli_build import (
    Subparsers,
    add_operator,
    group,
    online,
    open_operator,
    print_facts,
    verb,
)

if TYPE_CHECKING:
    from larrey_protocol.keys import SigningKey
    from larrey_protocol.roster import Roster
    from larrey_server.operator import Operator
    from larrey_server.vouching import RosterFile

__all__ = ["command"]

_PERSON = """example:
  larrey person new ada --role lead --out ada.key > ada.toml
  larrey person new ada --role lead --out ada.key --operator-file ada-operator.toml > ada.toml

Asks for a passphrase; LARREY_PASSPHRASE_FILE names a file of mode 0600 that holds it. The key stays
with its owner; the printed lines go into roster.toml, after larrey roster draft wrote it.
--operator-file also writes the person's own operator file, with coordinator and certificate of the
one that --operator or LARREY_OPERATOR names.
"""
_SIGN = """examples:
  larrey roster sign roster.toml --operator operator.toml
  larrey roster sign roster.toml --key consortium.ed25519 --out roster.signed

The first sends it at once. The second is for the machine on which the consortium's key lies, which
is offline; then, on the other: larrey roster send roster.signed --operator operator.toml
"""
_DRAFT = "larrey roster draft > roster.toml"


def command(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``person``, ``roster`` and ``consortium`` to the parser."""
    people = group(commands, "person", "keys of persons", "larrey person new ada --out ada.key")
    new = verb(people, "new", "make a person's key behind a passphrase", _new_person, _PERSON)
    new.add_argument("name", metavar="NAME", help="as permits name the person, e.g. ada")
    new.add_argument("--role", choices=("lead", "member", "operator", "auditor"), default="member")
    new.add_argument("--out", type=Path, required=True, help="new key file", metavar="FILE")
    text = "new operator file of this person, made from the present one"
    new.add_argument("--operator-file", type=Path, help=text, metavar="FILE")
    add_operator(new)
    rosters = group(commands, "roster", "sites and people that the consortium vouches for", _DRAFT)
    text = "print roster.toml from the coordinator's members, to be compared by phone"
    add_operator(verb(rosters, "draft", text, _draft, f"example:\n  {_DRAFT}\n"))
    sign = verb(rosters, "sign", "sign a roster under the consortium's key", _sign, _SIGN)
    add_operator(sign)
    sign.add_argument("--json", action="store_true", help="print JSON on stdout")
    sign.add_argument("file", type=Path, help="roster.toml; without a version it is the next one")
    sign.add_argument("--key", type=Path, help="the consortium's key, offline", metavar="FILE")
    sign.add_argument("--out", type=Path, help="write it instead of sending it", metavar="FILE")
    send = online(
        rosters, "send", "send a roster that was signed offline", _send, "larrey roster send FILE"
    )
    send.add_argument("file", type=Path, help="what larrey roster sign --out wrote")
    online(rosters, "show", "show the newest roster", _show, "larrey roster show")
    keys = group(
        commands, "consortium", "the consortium's key", "larrey consortium rotate --new-key new.key"
    )
    rotate = online(
        keys,
        "rotate",
        "replace the consortium's key, signed by the old one",
        _rotate,
        "larrey consortium rotate --new-key new.key",
    )
    rotate.add_argument(
        "--new-key", type=Path, required=True, help="key file, made if need be", metavar="FILE"
    )


def _new_person(parsed: argparse.Namespace) -> int:
    from larrey_protocol.keys import SigningKey, fingerprint
    from larrey_protocol.newfile import require_new
    from larrey_protocol.passphrase import new_passphrase
    from larrey_protocol.people import Person
    from larrey_protocol.tomlfile import validate
    from larrey_server.vouching import table

    key = SigningKey.generate()
    facts = {"name": parsed.name, "role": parsed.role, "key": key.public}
    person = validate(facts, Person, "person new")
    require_new(parsed.out)
    own = _operator_file(parsed) if parsed.operator_file else ""
    key.save(parsed.out, new_passphrase(f"New passphrase of {parsed.out}: "))
    sys.stdout.write(table("people", person))
    sys.stderr.write(
        f"fingerprint to read out by phone: {fingerprint(key.public)}\n"
        "the printed lines go into roster.toml\n"
    )
    if own:
        with parsed.operator_file.open("x", encoding="utf-8") as file:
            file.write(own)
        sys.stderr.write(f"{parsed.name} works with: --operator {parsed.operator_file}\n")
    return 0


def _operator_file(parsed: argparse.Namespace) -> str:
    """Return the text of a person's own operator file."""
    from larrey_protocol.newfile import require_new
    from larrey_server.operator_file import operator_file
    from larrey_server.settings import OperatorPerson, load_operator
    from larrey_server.signers import consortium_key

    require_new(parsed.operator_file)
    settings = load_operator(parsed.operator)
    person = OperatorPerson(name=parsed.name, key=parsed.out.resolve())
    folder = parsed.operator_file.resolve().parent
    return operator_file(settings, consortium_key(settings), person, folder)


def _draft(parsed: argparse.Namespace) -> int:
    from larrey_protocol.roster import Seat
    from larrey_server.vouching import draft

    with open_operator(parsed) as operator:
        _, present = _vouched(operator)
        members = operator.members({"verb": "list"})["sites"]
        unended = [facts["sites"] for facts in operator.list() if facts["state"] != "ended"]
    seats = [
        Seat(name=member["site"], key=member["key"])
        for member in members
        if member["state"] == "active" and member["key"]
    ]
    needed = {row["site"] for rows in unended for row in rows}
    sys.stdout.write(draft(seats, present, needed))
    return 0


def _sign(parsed: argparse.Namespace) -> int:
    from larrey_protocol.signed import sign
    from larrey_protocol.tomlfile import load_toml
    from larrey_server.vouching import RosterFile, next_roster

    file = load_toml(parsed.file, RosterFile)
    if parsed.key is not None or parsed.out is not None:
        return _sign_offline(file, parsed)
    with open_operator(parsed) as operator:
        _, present = _vouched(operator)
        roster = next_roster(file, present, time.time())
        digest = operator.put_roster(sign(roster, operator.root().key))
    facts = {"version": roster.version, "digest": digest, "sites": [s.name for s in roster.sites]}
    print_facts(facts | {"people": [p.name for p in roster.people]}, as_json=parsed.json)
    return 0


def _sign_offline(file: RosterFile, parsed: argparse.Namespace) -> int:
    from larrey_protocol.errors import FileError, UsageError
    from larrey_protocol.passphrase import load_person_key
    from larrey_protocol.roster import EMPTY
    from larrey_protocol.signed import sign
    from larrey_server.vouching import next_roster

    if parsed.key is None or parsed.out is None or file.version is None:
        raise UsageError(
            "missing-argument",
            "signing offline takes --key, --out and a version in roster.toml",
            "Draft it where the coordinator answers: larrey roster draft > roster.toml",
        )
    signed = sign(next_roster(file, EMPTY, time.time()), load_person_key(parsed.key))
    try:
        with parsed.out.open("xb") as out:
            out.write(signed.to_bytes() + b"\n")
    except FileExistsError:
        raise FileError("file-exists", f"{parsed.out} exists already", "Choose another.") from None
    print_facts({"version": file.version, "digest": signed.digest}, as_json=parsed.json)
    return 0


def _send(parsed: argparse.Namespace) -> int:
    from larrey_protocol.signed import Signed
    from larrey_protocol.tomlfile import read_text

    signed = Signed.from_bytes(read_text(parsed.file).encode())
    with open_operator(parsed) as operator:
        digest = operator.put_roster(signed)
    print_facts({"digest": digest}, as_json=parsed.json)
    return 0


def _show(parsed: argparse.Namespace) -> int:
    from larrey_protocol.keys import fingerprint

    with open_operator(parsed) as operator:
        key, roster = _vouched(operator)
    if parsed.json:
        sys.stdout.write(json.dumps(roster.model_dump(mode="json") | {"consortium": key}) + "\n")
        return 0
    sys.stdout.write(f"roster version {roster.version} of consortium {fingerprint(key)}\n")
    for seat in roster.sites:
        sys.stdout.write(f"site    {seat.name:<20} {fingerprint(seat.key)}\n")
    for person in roster.people:
        sys.stdout.write(f"{person.role:<7} {person.name:<20} {fingerprint(person.key)}\n")
    return 0


def _rotate(parsed: argparse.Namespace) -> int:
    from larrey_protocol.keys import fingerprint
    from larrey_protocol.roster import KeyChange
    from larrey_protocol.signed import sign

    with open_operator(parsed) as operator:
        _, roster = _vouched(operator)
        old, new = operator.root().key, _made(parsed.new_key)
        change = KeyChange(old=old.public, new=new.public, at=time.time())
        digest = operator.put_roster(sign(change, old))
        again = roster.model_copy(update={"version": roster.version + 1, "issued_at": time.time()})
        operator.put_roster(sign(again, new))
    print_facts({"key": new.public, "digest": digest}, as_json=parsed.json)
    sys.stderr.write(
        f"the consortium's key is {fingerprint(new.public)} now; read it out by phone, and name it"
        " under [consortium] in operator.toml and coordinator.toml\n"
    )
    return 0


def _made(path: Path) -> SigningKey:
    """Return the key in a file, made behind a passphrase where there is none yet."""
    from larrey_protocol.keys import SigningKey
    from larrey_protocol.passphrase import load_person_key, new_passphrase

    if not path.exists():
        SigningKey.generate().save(path, new_passphrase(f"New passphrase of {path}: "))
    return load_person_key(path)


def _vouched(operator: Operator) -> tuple[str, Roster]:
    """Return the consortium's key and newest roster, verified under the operator file's key."""
    from larrey_server.vouching import newest

    return newest(operator.rosters(), operator.consortium())
