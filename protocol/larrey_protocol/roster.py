"""The roster: which sites and persons the consortium vouches for, signed under its key.

It comes to a site through the coordinator, which cannot add to it: a site that the consortium did
not sign is nobody. Versions only grow. An approval binds the seats of the study's own sites (names
and keys), so that a site exchanged later needs a new approval.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import Field, model_validator

from larrey_protocol.canonical import LARGEST, digest_of
from larrey_protocol.errors import IntegrityError
from larrey_protocol.keys import PublicKey, fingerprint
from larrey_protocol.people import Person, find_person, require_right
from larrey_protocol.signed import Signed, open_signed
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record

__all__ = ["CONSORTIUM", "EMPTY", "KeyChange", "Roster", "Seat", "name_of", "open_under"]

CONSORTIUM = "consortium"  # how the consortium's own key is named on record

_RecordT = TypeVar("_RecordT", bound=Record)


class Seat(Record):
    """A site's name and the key that signs its answers, receipts and anchors."""

    name: SiteName
    key: PublicKey


class Roster(Record):
    """Everybody the consortium vouches for; kind ``roster``, signed by the consortium's key."""

    version: int = Field(ge=0, le=LARGEST)
    issued_at: float
    sites: tuple[Seat, ...] = Field((), max_length=1000)
    people: tuple[Person, ...] = Field((), max_length=1000)

    @model_validator(mode="after")
    def _distinct(self) -> Roster:
        for values in ([s.name for s in self.sites], [s.key for s in self.sites],
                       [p.key for p in self.people]):  # fmt: skip
            if len(set(values)) < len(values):
                raise ValueError("a name or key is listed twice")
        if taken := {p.name for p in self.people} & {CONSORTIUM, "coordinator"}:
            raise ValueError(f"nobody may be called {taken.pop()}: the trail means the key itself")
        return self

    def seats(self, names: Iterable[str]) -> tuple[Seat, ...]:
        """Return the seats of these sites in their order, without those that are not listed."""
        known = {seat.name: seat for seat in self.sites}
        return tuple(known[name] for name in names if name in known)

    def seats_digest(self, names: Iterable[str]) -> str:
        """Return what an approval binds: the digest of names and keys of these sites."""
        return digest_of([seat.model_dump(mode="json") for seat in self.seats(names)])


EMPTY = Roster(version=0, issued_at=0.0)


class KeyChange(Record):
    """The consortium's next key; kind ``keychange``, signed by the key that it replaces."""

    old: PublicKey
    new: PublicKey
    at: float


def name_of(key: str, *, consortium: str, roster: Roster) -> str:
    """Return under which name a key signs: "consortium", a person's name, else its fingerprint."""
    if key == consortium:
        return CONSORTIUM
    person = find_person(roster.people, key)
    return person.name if person else f"key {fingerprint(key)}"


def open_under(
    signed: Signed, model: type[_RecordT], right: str, *, consortium: str, roster: Roster
) -> _RecordT:
    """Return a document that the consortium's key signed, or a person of its roster with ``right``.

    Raises:
        IntegrityError: as `open_signed`; ``wrong-signer`` for a person who is not on the roster.
        Refusal: ``role-not-allowed``.
    """
    if signed.signer == consortium:
        return open_signed(signed, model, consortium)
    if all(person.key != signed.signer for person in roster.people):
        raise IntegrityError(
            "wrong-signer",
            f"a {signed.kind} is signed by a key that the roster does not list",
            "Sign with the key that larrey roster show lists, or have this one put on the roster.",
        )
    document = open_signed(signed, model, signed.signer)
    require_right(roster.people, signed.signer, right)
    return document
