"""The charter: the part of site.toml that protects, signed by the hospital's own people. Pure.

Policy, people, consortium key, every dataset's budget and the witness that guards the ledger's end
are one document with one digest. The first charter counts when the roles that it asks for have
signed it; every later one when the roles and people of the charter before it have. Until then the
gate refuses everything, so that who can edit site.toml can stop this node but cannot loosen what it
protects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from larrey_client.settings import Policy, SiteSettings
from larrey_client.witness_settings import Witness
from larrey_protocol.canonical import digest_of
from larrey_protocol.decisions import PolicySignature
from larrey_protocol.errors import IntegrityError, Refusal, UsageError
from larrey_protocol.keys import PublicKey
from larrey_protocol.people import Person, Role, find_person, require_right
from larrey_protocol.signed import Signed, open_signed
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record

__all__ = [
    "Charter",
    "Version",
    "changes",
    "charter_of",
    "effective",
    "history",
    "next_version",
    "open_policy_signature",
    "parse_version",
    "people_ever",
    "require_signable",
    "who_must_sign",
]


class CharterDataset(Record):
    """A dataset's budget, per patient at this site, add/remove neighbours."""

    name: SiteName
    epsilon: float
    delta: float
    unit: str | None = None


class CharterMembership(Record):
    """Which other consortium may propose here; its addresses are not signed."""

    name: SiteName
    consortium: PublicKey


class Charter(Record):
    """What this hospital's people sign about their own node."""

    site: SiteName
    consortium: PublicKey
    policy: Policy
    people: tuple[Person, ...]
    datasets: tuple[CharterDataset, ...]
    witness: Witness = Witness()
    memberships: tuple[CharterMembership, ...] = ()

    @property
    def text(self) -> dict[str, Any]:  # Any: JSON values are recursive
        """Return what is signed and kept: every value, defaults too, but no empty memberships.

        So a charter from before there were several reads the same as ever.
        """
        return self.model_dump(mode="json", exclude=None if self.memberships else {"memberships"})

    @property
    def digest(self) -> str:
        """Return the digest that a `PolicySignature` binds."""
        return digest_of(self.text)


@dataclass(frozen=True, slots=True)
class Version:
    """A charter, its number at this site from 1, and the digest of its text as it was signed.

    The digest is of the text that was kept: a later release may know more fields.
    """

    number: int
    digest: str
    charter: Charter


def charter_of(settings: SiteSettings) -> Charter:
    """Return the charter that site.toml states."""
    return Charter(
        site=settings.site.name,
        consortium=settings.consortium.key,
        policy=settings.policy,
        people=settings.people,
        datasets=tuple(
            CharterDataset(name=d.name, epsilon=d.epsilon, delta=d.delta, unit=d.unit)
            for d in settings.datasets
        ),
        witness=settings.witness,
        memberships=tuple(
            CharterMembership(name=one.name, consortium=one.consortium.key)
            for one in settings.memberships
        ),
    )


def history(versions: Sequence[Version], signatures: Iterable[Signed]) -> tuple[Version, ...]:
    """Return every charter that ever took effect, oldest first.

    Args:
        versions: every charter somebody signed here, in the order of their numbers.
        signatures: `PolicySignature` documents in any order.

    Raises:
        IntegrityError: a signature does not verify, or is under a charter that is not kept.
    """
    opened = [(_word(signed), signed.signer) for signed in signatures]
    if any(not any(_is_under(word, version) for version in versions) for word, _ in opened):
        raise IntegrityError("document-altered", "a charter that somebody signed is gone")
    past: list[Version] = []
    for version in versions:
        signers = [key for word, key in opened if _is_under(word, version)]
        if not _missing(past[-1].charter if past else version.charter, signers):
            past.append(version)
    return tuple(past)


def effective(versions: Sequence[Version], signatures: Iterable[Signed]) -> Version | None:
    """Return the newest charter that took effect, None before the first."""
    past = history(versions, signatures)
    return past[-1] if past else None


def people_ever(past: Iterable[Version]) -> dict[str, Person]:
    """Return everybody whom some effective charter named, by key, as the newest one names them.

    What a person signed while they were named stays signed when they leave.
    """
    return {person.key: person for version in past for person in version.charter.people}


def next_version(versions: Sequence[Version], charter: Charter) -> Version:
    """Return the newest version if it is this charter, else this charter as the next version."""
    if versions and versions[-1].digest == charter.digest:
        return versions[-1]
    return Version(len(versions) + 1, charter.digest, charter)


def who_must_sign(
    versions: Sequence[Version], signatures: Sequence[Signed], charter: Charter
) -> tuple[Role, ...]:
    """Return the roles whose signature this charter still lacks; none if it is in effect."""
    now = effective(versions, signatures)
    if now is not None and now.digest == charter.digest:
        return ()
    version = next_version(versions, charter)
    signers = [s.signer for s in signatures if _is_under(_word(s), version)]
    return _missing(now.charter if now else charter, signers)


def open_policy_signature(
    signed: Signed, version: Version, now: Version | None
) -> tuple[PolicySignature, Person]:
    """Return a signature and whose it is, if it may count for this version.

    Args:
        signed: as a person's command made it.
        version: the charter that site.toml states.
        now: the charter in effect, None before the first.

    Raises:
        IntegrityError: as `open_signed`.
        Refusal: ``policy-differs``, ``person-unknown`` or ``role-not-allowed``.
    """
    require_signable(version.charter)
    word = open_signed(signed, PolicySignature, signed.signer)
    person = require_right((now or version).charter.people, signed.signer, "policy")
    if not _is_under(word, version) or word.person != person.name:
        raise Refusal(
            "policy-differs",
            f"the signature is not by {person.name} under version {version.number} of the policy",
            "Restart the node if site.toml changed; then: larrey-site policy sign --key FILE",
        )
    return word, person


def require_signable(charter: Charter) -> None:
    """Return if the roles that the policy asks for have persons; else nobody could ever sign again.

    Raises:
        UsageError: ``people-missing``.
    """
    empty = [r for r in charter.policy.approvals if all(p.role != r for p in charter.people)]
    if empty:
        raise UsageError(
            "people-missing",
            f"policy.approvals asks for {empty[0]}, and site.toml lists no such person",
            f"Add one: larrey-site person new NAME --role {empty[0]} --out FILE",
        )


def parse_version(number: int, digest: str, text: bytes) -> Version:
    """Return a kept charter.

    Raises:
        IntegrityError: ``document-altered``.
    """
    try:
        value = json.loads(text)
        charter = Charter.model_validate(value)
        is_whole = digest_of(value) == digest
    except (ValueError, RecursionError) as error:
        raise IntegrityError("document-altered", f"charter {number} cannot be read") from error
    if not is_whole:
        raise IntegrityError("document-altered", f"charter {number} is not what was signed")
    return Version(number, digest, charter)


def changes(before: Charter | None, after: Charter) -> list[tuple[str, Any, Any]]:
    """Return (place, old, new) of every value that differs; None where there is none."""
    old = dict(_leaves("", before.text)) if before else {}
    new = dict(_leaves("", after.text))
    places = [*new, *(place for place in old if place not in new)]
    return [(p, old.get(p), new.get(p)) for p in places if old.get(p) != new.get(p)]


def _leaves(place: str, value: Any) -> Iterable[tuple[str, Any]]:  # Any: JSON values are recursive
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{place}.{key}" if place else str(key), inner)
    elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        for inner in value:
            yield from _leaves(f"{place}.{inner.get('name', '')}", inner)
    else:
        yield place, value


def _word(signed: Signed) -> PolicySignature:
    return open_signed(signed, PolicySignature, signed.signer)


def _is_under(word: PolicySignature, version: Version) -> bool:
    named = (version.charter.site, version.number, version.digest)
    return (word.site, word.version, word.policy) == named


def _missing(judge: Charter, signers: Iterable[str]) -> tuple[Role, ...]:
    """Return which of the judge's roles none of the signers has, as the judge lists them."""
    people = [find_person(judge.people, key) for key in signers]
    roles = {person.role for person in people if person is not None}
    return tuple(role for role in judge.policy.approvals if role not in roles)
