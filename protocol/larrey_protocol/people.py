"""Named persons, what their role lets them sign, and who may never be one person.

A person signs with a key of their own, which no node and no coordinator holds: they know public
halves. A role says which documents a signature counts on. Hardware tokens and OpenID Connect come
as further sources of the same signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from larrey_protocol.errors import Refusal
from larrey_protocol.keys import PublicKey
from larrey_protocol.tomlfile import Record

__all__ = ["Person", "PersonName", "Role", "find_person", "require_right", "require_separate"]

Role = Literal["lead", "member", "it", "dpo", "operator", "auditor"]
PersonName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]{1,40}$")]

# What each role's signature counts on. A right that is listed nowhere is nobody's.
_RIGHTS: dict[str, frozenset[Role]] = {
    "permit": frozenset({"lead"}),
    "propose": frozenset({"lead"}),
    "amend": frozenset({"lead"}),
    "launch": frozenset({"lead", "member"}),
    "release": frozenset({"lead", "member"}),
    "pause": frozenset({"lead", "member", "operator"}),
    "halt": frozenset({"lead", "member", "operator"}),
    "resume": frozenset({"lead", "member"}),
    "exclude": frozenset({"lead", "member", "operator"}),
    "include": frozenset({"lead", "member", "operator"}),
    "extend": frozenset({"lead", "member", "operator"}),
    "retry": frozenset({"lead", "member", "operator"}),
    "close": frozenset({"lead"}),
    "withdraw": frozenset({"lead", "member"}),
    "approve": frozenset({"it", "dpo"}),
    "policy": frozenset({"it", "dpo"}),
    "countersign": frozenset({"dpo"}),
    "register": frozenset({"dpo"}),
    "adopt": frozenset({"dpo"}),
    "site-resume": frozenset({"it", "dpo"}),
    "leave": frozenset({"it", "dpo"}),
}


class Person(Record):
    """A named person, one of their roles, and the public half of their key."""

    name: PersonName
    role: Role
    key: PublicKey


def find_person(people: Iterable[Person], key: str) -> Person | None:
    """Return whose key this is, None if nobody's."""
    return next((person for person in people if person.key == key), None)


def require_right(people: Iterable[Person], key: str, right: str) -> Person:
    """Return the person whose key this is, if their role has the right.

    Raises:
        Refusal: ``person-unknown`` or ``role-not-allowed``.
    """
    person = find_person(people, key)
    if person is None:
        raise Refusal(
            "person-unknown",
            "the signature is of a key that belongs to no person known here",
            "Have the person's public key listed first.",
        )
    allowed = _RIGHTS.get(right, frozenset())
    if person.role not in allowed:
        raise Refusal(
            "role-not-allowed",
            f"{person.name} is {person.role}; to {right} takes {' or '.join(sorted(allowed))}",
            "Ask a person with that role to sign.",
        )
    return person


def require_separate(
    launchers: Sequence[str], approvers: Sequence[str], releasers: Sequence[str]
) -> None:
    """Return if no key is on two of the lists: launch, approval and release are never one person.

    Raises:
        Refusal: ``duties-not-separate``.
    """
    for one, other in ((launchers, approvers), (launchers, releasers), (approvers, releasers)):
        if set(one) & set(other):
            raise Refusal(
                "duties-not-separate",
                "launch, approval and release of a study must be signed by different persons",
                "Have another person sign.",
            )
