"""Every signed document that counts at this site, opened and verified as one value.

Nothing read from the database is believed because it was once put there: each signature is checked
again, and each document, halt and resume that the audit trail names must still be there. One
changed byte, or one row gone, and there is no dossier but a sentence that says so; the gate refuses
everything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from larrey_client.approvals import GivenApproval
from larrey_client.charter import Charter, Version, history, people_ever, who_must_sign
from larrey_client.consortium import (
    Permits,
    is_entitled,
    permit_chains,
    trusted_keys,
    trusted_rosters,
)
from larrey_client.orders import KeptOrder, kept_orders
from larrey_client.records import SiteRecords
from larrey_client.settings import Policy
from larrey_client.store import SiteStore
from larrey_protocol.decisions import Approval, Registration, SiteOrder
from larrey_protocol.errors import IntegrityError
from larrey_protocol.people import Person, Role
from larrey_protocol.permit import Countersignature, Permit
from larrey_protocol.roster import EMPTY, Roster
from larrey_protocol.signed import Proposal, Signed, open_signed
from larrey_protocol.study import Study

__all__ = ["Dossier", "Dossiers", "open_proposal", "read_dossier"]

# Kinds of documents, and the act under which the audit trail names each of them.
_KEPT = {
    "roster": "roster-received",
    "keychange": "key-changed",
    "permit": "permit-received",
    "countersignature": "permit-countersigned",
    "approval": "approval-signed",
    "policysignature": "policy-signed",
    "order": "order-received",
    "registration": "dataset-registered",
}


@dataclass(frozen=True, slots=True)
class Dossier:
    """What is signed here.

    Attributes:
        keys: of the consortium, the pinned one first, the present one last.
        rosters: by version, the empty one first.
        permits: by reference, every version with the digest of its signed form, oldest first.
        countersigned: digests of the permits that this site's officer signed.
        approvals: of this site, by study, in the order in which they were kept.
        orders: by study, as they are numbered.
        versions: every charter that somebody signed.
        past: those of them that took effect; the last one is in effect.
        signatures: under charters.
        altered: why there is nothing else in here; empty where everything verified.
    """

    keys: tuple[str, ...]
    rosters: tuple[Roster, ...] = (EMPTY,)
    permits: Permits = field(default_factory=lambda: MappingProxyType({}))
    countersigned: frozenset[str] = frozenset()
    approvals: Mapping[str, tuple[GivenApproval, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    orders: Mapping[str, tuple[KeptOrder, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    versions: tuple[Version, ...] = ()
    past: tuple[Version, ...] = ()
    signatures: tuple[Signed, ...] = ()
    altered: str = ""

    @property
    def roster(self) -> Roster:
        """Return the newest roster."""
        return self.rosters[-1]

    @property
    def charter(self) -> Charter | None:
        """Return the charter in effect."""
        return self.past[-1].charter if self.past else None

    @property
    def people(self) -> tuple[Person, ...]:
        """Return the persons whose signature counts now."""
        return self.charter.people if self.charter else ()

    def entitled(self, declared: Iterable[Person]) -> tuple[Person, ...]:
        """Return whose orders count: the charter's people; before the first one those ``declared``.

        Raises:
            IntegrityError: ``document-altered``.
        """
        self.require_whole()
        return self.people if self.charter else tuple(declared)

    def policy(self, declared: Policy) -> Policy:
        """Return the policy in effect, before the first charter the ``declared`` one.

        Raises:
            IntegrityError: ``document-altered``.
        """
        self.require_whole()
        return self.charter.policy if self.charter else declared

    def require_whole(self) -> None:
        """Return if nothing was altered.

        Raises:
            IntegrityError: ``document-altered``.
        """
        if self.altered:
            raise IntegrityError("document-altered", self.altered, "Open an incident.")

    @property
    def approvers(self) -> tuple[Role, ...]:
        """Return the roles that must sign an approval."""
        return self.charter.policy.approvals if self.charter else ("dpo",)

    def permit(self, reference: str) -> tuple[str, Permit | None]:
        """Return digest and newest version of a permit, nothing where it is unknown."""
        versions = self.permits.get(reference, ())
        return versions[-1] if versions else ("", None)

    def is_charter(self, digest: str) -> bool:
        """Return whether the charter of this digest is in effect."""
        return bool(self.past) and self.past[-1].digest == digest

    def unsigned(self, charter: Charter) -> tuple[Role, ...]:
        """Return whose signature a charter lacks."""
        return who_must_sign(self.versions, self.signatures, charter)


def read_dossier(records: SiteRecords, pinned: str) -> Dossier:
    """Return the verified documents of a site, or a dossier that says what was altered."""
    try:
        return _read(records, pinned)
    except (IntegrityError, sqlite3.Error) as error:
        return Dossier(keys=(pinned,), altered=str(error))


def open_proposal(signed: Signed, study: str, dossier: Dossier) -> Study:
    """Return the study of a kept proposal, verified again.

    Raises:
        IntegrityError: ``document-altered``, ``bad-signature`` or ``wrong-signer``.
    """
    found = open_signed(signed, Proposal, signed.signer).study
    if found.digest != study:
        raise IntegrityError(
            "document-altered", "a kept proposal is not of the study it stands for"
        )
    if not is_entitled(signed.signer, "propose", dossier.keys, dossier.rosters):
        raise IntegrityError("wrong-signer", "a kept proposal is signed by an unexpected key")
    return found


class Dossiers:
    """The dossier of a running node, read again when anything may have changed."""

    def __init__(self, store: SiteStore, pinned: str) -> None:
        self._store, self._pinned = store, pinned
        self._read: tuple[tuple[int, int], Dossier] | None = None

    def now(self) -> Dossier:
        """Return the dossier as the database has it now."""
        with self._store.reading() as records:
            revision = self._store.revision
            if self._read is None or self._read[0] != revision:
                self._read = revision, read_dossier(records, self._pinned)
            return self._read[1]


def _read(records: SiteRecords, pinned: str) -> Dossier:
    found = {kind: records.documents_of_all(kind) for kind in _KEPT}
    _require_all(records, (signed for documents in found.values() for signed, _ in documents))
    kept = {
        kind: tuple(signed for signed, is_ours in documents if is_ours)
        for kind, documents in found.items()
    }
    for signed in kept["registration"]:
        open_signed(signed, Registration, signed.signer)
    versions, signatures = tuple(records.charters()), kept["policysignature"]
    past = history(versions, signatures)
    site, people = past[-1].charter.site if past else "", people_ever(past)
    _require_officer(records, past)
    keys = trusted_keys(pinned, kept["keychange"])
    rosters = trusted_rosters(keys, kept["roster"])
    return Dossier(
        keys=keys,
        rosters=rosters,
        permits=MappingProxyType(dict(permit_chains(keys, rosters, kept["permit"]))),
        countersigned=_countersigned(kept["countersignature"], people, site),
        approvals=MappingProxyType(_approvals(kept["approval"], people, site)),
        orders=MappingProxyType(kept_orders(kept["order"])),
        versions=versions,
        past=past,
        signatures=signatures,
    )


def _require_officer(records: SiteRecords, past: Sequence[Version]) -> None:
    """Return if each entry that frees, splits or adopts budget has an officer's order of its own.

    Before the first charter nobody is an officer yet, and the gate refuses everything.
    """
    charters = [version.charter for version in past]
    officers = {p.key for charter in charters for p in charter.people if p.role == "dpo"}
    orders = {signed.digest: signed for signed in records.documents("siteorder")}
    for kind, document in records.ledger_orders() if past else ():
        signed = orders.pop(document, None)  # an order counts once
        if signed is None or signed.signer not in officers:
            raise _unordered(kind)
        order = open_signed(signed, SiteOrder, signed.signer)
        verb = "adopt" if kind == "adopt" else "split-family"
        if (order.site, order.verb) != (charters[-1].site, verb):
            raise _unordered(kind)


def _unordered(kind: str) -> IntegrityError:
    return IntegrityError(
        "document-altered", f"the ledger has an entry to {kind} without an officer's order"
    )


def _require_all(records: SiteRecords, kept: Iterable[Signed]) -> None:
    """Return if every document that the trail names is kept, of whichever membership it is."""
    gone = records.audited(*_KEPT.values()) - {signed.digest for signed in kept}
    if gone:
        raise IntegrityError(
            "document-altered", f"{len(gone)} of the documents that were kept are gone or changed"
        )
    if records.stops() != records.stops_on_trail():
        raise IntegrityError(
            "document-altered",
            "what was halted, paused and resumed here is not what the trail says",
        )


def _countersigned(
    kept: Iterable[Signed], people: Mapping[str, Person], site: str
) -> frozenset[str]:
    """Return what an officer signed for this site; one person may be officer of several nodes."""
    words = [(open_signed(s, Countersignature, s.signer), people.get(s.signer)) for s in kept]
    return frozenset(
        word.permit
        for word, person in words
        if person is not None and (person.role, word.site) == ("dpo", site)
    )


def _approvals(
    kept: Iterable[Signed], people: Mapping[str, Person], site: str
) -> dict[str, tuple[GivenApproval, ...]]:
    found: dict[str, tuple[GivenApproval, ...]] = {}
    for signed in kept:
        word, person = open_signed(signed, Approval, signed.signer), people.get(signed.signer)
        if person is not None and word.site == site:
            given = GivenApproval(word, signed.signer, person.role)
            found[word.study] = (*found.get(word.study, ()), given)
    return found
