"""Approvals: what persons of this site signed about a study, and what that amounts to. Pure.

Approving takes one signature of each role that the charter names, each by another person, over the
same study, permit version, seats and dataset. Refusing or revoking takes one. A revocation is final
for its digest; an approval of an older permit version or of other seats does not count for the
present ones, but new ones may follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from larrey_protocol.decisions import Approval
from larrey_protocol.people import Role

__all__ = ["NO_CONSENT", "Consent", "GivenApproval", "consent_of", "signatures_on"]


@dataclass(frozen=True, slots=True)
class GivenApproval:
    """A verified approval, the key that signed it and the role it counts as."""

    approval: Approval
    key: str
    role: Role


@dataclass(frozen=True, slots=True)
class Consent:
    """What the persons of a site have said about a study.

    Attributes:
        state: ``none``, ``partial`` (some roles are missing), ``approved``, ``refused`` or
            ``revoked``.
        permit, seats: digests that the newest complete approval binds.
        dataset: where the study may run; fixed by the first complete approval.
        keys: everybody who ever approved it; none of them may launch or release it.
        carried_from: the parent whose approval was carried over; empty if its own.
    """

    state: Literal["none", "partial", "approved", "refused", "revoked"]
    permit: str = ""
    seats: str = ""
    dataset: str = ""
    keys: tuple[str, ...] = ()
    carried_from: str = ""


NO_CONSENT = Consent("none")
_Terms = tuple[str, str, str]  # permit, seats, dataset


def consent_of(given: Iterable[GivenApproval], needed: Sequence[Role]) -> Consent:
    """Return what the approvals of one study, oldest first, amount to."""
    signed: dict[_Terms, dict[Role, str]] = {}
    now, keys = NO_CONSENT, list[str]()
    for one in given:
        word = one.approval
        if word.decision != "approved":
            if now.state != "revoked":
                now = replace(now, state=word.decision)
            continue
        keys.append(one.key)
        terms = (word.permit, word.seats, word.dataset)
        roles = signed.setdefault(terms, {})
        if one.key not in roles.values():
            roles[one.role] = one.key
        if now.state not in {"refused", "revoked"} and not _missing(roles, needed):
            now = Consent("approved", *terms)
    if now.state == "none" and keys:
        now = replace(now, state="partial")
    return replace(now, keys=tuple(dict.fromkeys(keys)))


def signatures_on(
    given: Iterable[GivenApproval], terms: _Terms, needed: Sequence[Role]
) -> tuple[tuple[Role, ...], tuple[Role, ...]]:
    """Return which roles signed exactly (permit, seats, dataset), and which are missing."""
    signed: dict[Role, str] = {}
    for one in given:
        word = one.approval
        same = (word.permit, word.seats, word.dataset) == terms
        if word.decision == "approved" and same and one.key not in signed.values():
            signed[one.role] = one.key
    return tuple(role for role in needed if role in signed), _missing(signed, needed)


def _missing(roles: Iterable[Role], needed: Sequence[Role]) -> tuple[Role, ...]:
    signed = set(roles)
    return tuple(role for role in needed if role not in signed)
