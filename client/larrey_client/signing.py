"""Persons sign this site's own policy and countersign permits; the node checks, keeps, records.

Works on the state folder's one writer, be it the running node or a command while none runs.
"""

from __future__ import annotations

from larrey_client.charter import (
    charter_of,
    next_version,
    open_policy_signature,
    who_must_sign,
)
from larrey_client.dossier import Dossier, read_dossier
from larrey_client.memberships import dossiers
from larrey_client.settings import SiteSettings
from larrey_client.store import SiteStore
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.people import Role, require_right
from larrey_protocol.permit import Countersignature
from larrey_protocol.signed import Signed, open_signed

__all__ = ["countersign", "policy_version", "sign_policy"]


def policy_version(store: SiteStore, settings: SiteSettings) -> int:
    """Return the number under which site.toml's charter is, or would be, signed."""
    with store.reading() as records:
        return next_version(records.charters(), charter_of(settings)).number


def sign_policy(store: SiteStore, settings: SiteSettings, signed: Signed) -> tuple[Role, ...]:
    """Keep one person's signature under the charter of site.toml; return who must still sign.

    Raises:
        IntegrityError: ``document-altered``, or the signature's code.
        UsageError: ``people-missing``.
        Refusal: ``policy-differs``, ``person-unknown`` or ``role-not-allowed``.
    """
    with store.transaction():
        dossier = _dossier(store, settings)
        charter = charter_of(settings)
        version = next_version(dossier.versions, charter)
        now = dossier.past[-1] if dossier.past else None
        word, person = open_policy_signature(signed, version, now)
        if version not in dossier.versions:
            store.add_charter(version)
        if store.add_document(signed, subject=word.policy, number=version.number):
            store.audit("policy-signed", person.name, subject=signed.digest)
        kept = tuple(store.records.documents("policysignature"))
        return who_must_sign(tuple(store.records.charters()), kept, charter)


def countersign(store: SiteStore, settings: SiteSettings, signed: Signed) -> str:
    """Keep the officer's countersignature under the newest version of a permit; return its number.

    Raises:
        IntegrityError: ``document-altered``, or the signature's code.
        Refusal: ``person-unknown``, ``role-not-allowed``, ``permit-differs``.
    """
    with store.transaction():
        dossier = _dossier(store, settings)
        person = require_right(dossier.people, signed.signer, "countersign")
        word = open_signed(signed, Countersignature, signed.signer)
        newest = {
            chain[-1][0]: reference
            for _, one in dossiers(store.records, settings)
            for reference, chain in one.permits.items()
        }
        named = (word.site, word.person) == (settings.site.name, person.name)
        if not named or word.permit not in newest:
            raise Refusal(
                "permit-differs",
                "what was signed is not the newest version of a permit known here",
                "See: larrey-site permit list",
            )
        if store.add_document(signed, subject=word.permit):
            store.audit("permit-countersigned", person.name, subject=signed.digest)
        return newest[word.permit]


def _dossier(store: SiteStore, settings: SiteSettings) -> Dossier:
    dossier = read_dossier(store.records, settings.consortium.key)
    if dossier.altered:
        raise IntegrityError("document-altered", dossier.altered, "Open an incident.")
    return dossier
