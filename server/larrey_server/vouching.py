"""Whom the consortium vouches for, as its own people see it: drafts of rosters, the newest one.

Pure: values in, values out; `larrey_server.cli_people` signs and sends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pydantic import Field

from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import fingerprint
from larrey_protocol.people import Person
from larrey_protocol.roster import EMPTY, KeyChange, Roster, Seat
from larrey_protocol.signed import Signed, open_signed
from larrey_protocol.tomlfile import Record

__all__ = ["RosterFile", "draft", "newest", "next_roster", "table"]


class RosterFile(Record):
    """The content of ``roster.toml``; without a version it becomes the next one."""

    version: int | None = Field(None, ge=1)
    sites: tuple[Seat, ...] = Field((), max_length=1000)
    people: tuple[Person, ...] = Field((), max_length=1000)


def newest(documents: Iterable[Signed], anchor: str) -> tuple[str, Roster]:
    """Return the consortium's present key and newest roster, an empty one before the first.

    Args:
        documents: rosters and key changes, oldest first, as the coordinator tells them.
        anchor: the consortium's public key that the operator file pins; any key of its chain.

    Raises:
        IntegrityError: one does not verify, or ``consortium-unknown`` if none was signed under
            the pinned key or one that follows it.
    """
    found, roster, kept = anchor, EMPTY, list(documents)
    for signed in kept:
        if signed.kind == "keychange" and signed.signer == found:
            found = open_signed(signed, KeyChange, found).new
        elif signed.kind == "roster" and signed.signer == found:
            roster = max(roster, open_signed(signed, Roster, found), key=lambda r: r.version)
    signed_last = [signed.signer for signed in kept if signed.kind == "roster"][-1:]
    if signed_last and signed_last != [found] and roster is EMPTY:
        raise IntegrityError(
            "consortium-unknown",
            f"the coordinator's roster is signed by {fingerprint(signed_last[0])}, not under the"
            " key in the operator file",
            "Compare the consortium's fingerprint by phone.",
        )
    return found, roster


def next_roster(file: RosterFile, present: Roster, at: float) -> Roster:
    """Return the roster that a file asks for; ``at`` is now, in seconds since 1970."""
    version = file.version or present.version + 1
    return Roster(version=version, issued_at=at, sites=file.sites, people=file.people)


def draft(members: Sequence[Seat], present: Roster, needed: Collection[str] = ()) -> str:
    """Return a ``roster.toml`` with the coordinator's members and the present roster's people.

    A key that the present roster does not have is marked: it is the coordinator's word alone. A
    seat that ``needed`` names stays although its site is no member any more: without it no study
    that invites the site may go on, with the others either.
    """
    lines = [
        "# Compare every marked fingerprint with its owner by phone, then: larrey roster sign\n"
    ]
    lines.append(f"version = {present.version + 1}\n")
    known = {(seat.name, seat.key) for seat in present.sites}
    for seat in members:
        new = "" if (seat.name, seat.key) in known else "  NEW: compare by phone"
        lines.append(f"# {seat.name}  {fingerprint(seat.key)}{new}")
        lines.append(table("sites", seat))
    names = {seat.name for seat in members}
    for seat in present.sites:
        if seat.name in needed and seat.name not in names:
            why = "no member any more; a study that has not ended names it"
            lines.append(f"# {seat.name}  {fingerprint(seat.key)}  {why}")
            lines.append(table("sites", seat))
    for person in present.people:
        lines.append(f"# {person.name}  {fingerprint(person.key)}")
        lines.append(table("people", person))
    if not present.people:
        lines.append("# Add the consortium's people here: larrey person new ada --role lead ...")
    return "\n".join(lines) + "\n"


def table(name: str, entry: Seat | Person) -> str:
    """Return one entry of a list in TOML; its values hold nothing that needs an escape."""
    rows = [f'{key} = "{value}"' for key, value in entry.model_dump().items()]
    return "\n".join([f"[[{name}]]", *rows]) + "\n"
