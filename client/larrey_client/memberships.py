"""The memberships of one node: each coordinator with a consortium of its own, all with one ledger.

A membership is `Membership` in site.toml, and its *scope* in the state: what its consortium signs
is kept under that scope, and believed under no other membership's key. The first membership's scope
is the empty text; that of any other one is the consortium's key that site.toml pins.
"""

from __future__ import annotations

from collections.abc import Iterator

from larrey_client.dossier import Dossier, read_dossier
from larrey_client.records import SiteRecords
from larrey_client.settings import SiteSettings
from larrey_protocol.errors import IntegrityError

__all__ = ["dossier_for", "dossiers", "require_free"]


def require_free(records: SiteRecords, study: str) -> None:
    """Return unless another membership's consortium proposed the study.

    Raises:
        IntegrityError: ``study-of-other-membership``.
    """
    if records.scope_of(study) is not None:
        raise IntegrityError(
            "study-of-other-membership",
            "another membership's consortium proposed this very study here",
            "Ask the consortium for a version of its own, which has another digest.",
        )


def dossiers(records: SiteRecords, settings: SiteSettings) -> Iterator[tuple[str, Dossier]]:
    """Yield each membership's name and what is signed for it, as site.toml lists them."""
    for one in settings.members:
        scoped = SiteRecords(records.connection, one.scope)
        yield one.name, read_dossier(scoped, one.consortium.key)


def dossier_for(records: SiteRecords, settings: SiteSettings, scope: str) -> Dossier:
    """Return what is signed for one membership; where site.toml dropped it, nothing counts."""
    scoped = SiteRecords(records.connection, scope)
    pinned = next((one.consortium.key for one in settings.members if one.scope == scope), scope)
    return read_dossier(scoped, pinned)
