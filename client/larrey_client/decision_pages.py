"""What persons read before they sign: permits, the charter, and who has signed what. JSON values.

From any connection to the state, so that it can be read while no node runs. Everything shown was
verified again; where something was altered, that is what the page says.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from larrey_client.approvals import NO_CONSENT, signatures_on
from larrey_client.cases import consent_in, day_of, parent_in, warrant_in
from larrey_client.charter import changes, charter_of, next_version
from larrey_client.dossier import Dossier, read_dossier
from larrey_client.memberships import dossier_for, dossiers
from larrey_client.records import Known, SiteRecords
from larrey_client.settings import SiteSettings
from larrey_protocol.amendments import differences, needs_signature
from larrey_protocol.errors import UsageError
from larrey_protocol.keys import fingerprint
from larrey_protocol.people import Person, find_person
from larrey_protocol.permit import Permit, permit_state
from larrey_protocol.study import Study

__all__ = ["permit_view", "permits_view", "policy_view", "signing_view"]

Json = dict[str, Any]  # Any: JSON values are recursive


def policy_view(connection: sqlite3.Connection, settings: SiteSettings) -> Json:
    """Return what site.toml protects, what is signed of it, and the difference."""
    dossier = read_dossier(SiteRecords(connection), settings.consortium.key)
    charter = charter_of(settings)
    version = next_version(dossier.versions, charter)
    return {
        "site": charter.site,
        "version": version.number,
        "digest": version.digest,
        "is_in_effect": dossier.is_charter(charter.digest) and not dossier.altered,
        "missing": list(dossier.unsigned(charter)),
        "approvals": list(charter.policy.approvals),
        "changes": [list(change) for change in changes(dossier.charter, charter)],
        "people": [_person(person) for person in charter.people],
        "consortium": [fingerprint(key) for key in dossier.keys],
        "memberships": [
            {"name": one.name, "consortium": fingerprint(one.consortium.key)}
            for one in settings.members
        ],
        "altered": dossier.altered,
    }


def permits_view(connection: sqlite3.Connection, settings: SiteSettings) -> list[Json]:
    """Return one line a permit."""
    return [
        _permit_line(dossier, reference) | {"membership": name}
        for name, dossier in dossiers(SiteRecords(connection), settings)
        for reference in sorted(dossier.permits)
    ]


def permit_view(
    connection: sqlite3.Connection, settings: SiteSettings, reference: str, membership: str = ""
) -> Json:
    """Return all versions of a permit and everything that the newest one says.

    Where several consortia sent a permit of that number, ``membership`` says whose is meant.

    Raises:
        UsageError: ``permit-unknown`` or ``membership-required``.
        IntegrityError: ``document-altered``.
    """
    found = list(dossiers(SiteRecords(connection), settings))
    found[0][1].require_whole()
    having = [
        (name, one) for name, one in found if reference in one.permits and membership in {"", name}
    ]
    if not having:
        raise UsageError(
            "permit-unknown", f"no permit {reference} came here", "See: larrey-site permit list"
        )
    if len(having) > 1:
        names = ", ".join(name for name, _ in having)
        raise UsageError(
            "membership-required", f"{names} sent permits {reference}", "Add: --membership NAME"
        )
    of, dossier = having[0]
    chain = dossier.permits[reference]
    versions = [
        {
            "version": permit.permit.version,
            "state": permit.permit.state,
            "digest": digest,
            "decided_on": permit.permit.decided_on.isoformat(),
            "valid_until": permit.use.valid_until.isoformat(),
            "is_countersigned": digest in dossier.countersigned,
        }
        for digest, permit in chain
    ]
    shown = chain[-1][1].model_dump(mode="json")
    line = _permit_line(dossier, reference) | {"membership": of}
    return line | {"permit": shown, "versions": versions}


def signing_view(connection: sqlite3.Connection, settings: SiteSettings, known: Known) -> Json:
    """Return a study's permit, roster, signatures and what it changes of the version before it."""
    records = SiteRecords(connection)
    dossier, study = dossier_for(records, settings, known.scope), known.study
    today = _today(records)
    warrant = warrant_in(dossier, study, known.signer, today)
    proposer = find_person(warrant.roster.people, known.signer)
    return {
        "proposer": proposer.name if proposer else "",
        "permit": _permit_of(study, dossier, today),
        "permit_reference": study.file.study.permit,
        "roster": _seats(study, dossier),
        "roster_version": warrant.roster.version,
        "signatures": _signatures(records, dossier, known, warrant.permit_digest, warrant.seats),
        "amends": _amends(records, dossier, study),
        "altered": dossier.altered,
        "membership": settings.member_name(known.scope),
    }


def _signatures(
    records: SiteRecords, dossier: Dossier, known: Known, permit: str, seats: str
) -> Json:
    """Return whose approval counts for what holds now, and whose is missing."""
    study, needed = known.study, dossier.approvers
    given = dossier.approvals.get(study.digest, ())
    datasets = list(dict.fromkeys(one.approval.dataset for one in reversed(given)))
    found = [signatures_on(given, (permit, seats, dataset), needed) for dataset in datasets]
    signed: Sequence[str] = max((one[0] for one in found), key=len, default=())
    consent = consent_in(records, dossier, study)
    if consent.carried_from and known.decision is None:
        consent = NO_CONSENT  # nothing of the parent's was left to carry over
    if consent.state == "approved" and (consent.permit, consent.seats) == (permit, seats):
        signed = needed
    return {
        "needed": list(needed),
        "signed": list(signed),
        "missing": [role for role in needed if role not in signed],
        "is_outdated": consent.state == "approved" and list(signed) != list(needed),
        "carried_from": consent.carried_from,
    }


def _amends(records: SiteRecords, dossier: Dossier, study: Study) -> Json | None:
    parent = parent_in(records, dossier, study)
    if parent is None:
        return None
    found = differences(parent, study)
    return {
        "parent": parent.digest,
        "parent_version": parent.file.study.version,
        "needs_signature": needs_signature(found),
        "changes": [[change.place, change.before, change.after] for change in found],
    }


def _permit_of(study: Study, dossier: Dossier, today: dt.date) -> Json | None:
    reference = study.file.study.permit
    digest, permit = dossier.permit(reference)
    if permit is None:
        return None
    return {
        "reference": reference,
        "version": permit.permit.version,
        "state": permit_state(permit, today),
        "authority": permit.permit.authority,
        "legal_basis": permit.use.legal_basis,
        "controllers": list(permit.use.controllers),
        "people": list(permit.use.people),
        "valid_from": permit.use.valid_from.isoformat(),
        "valid_until": permit.use.valid_until.isoformat(),
        "retention_until": permit.use.retention_until.isoformat(),
        "opposition": permit.rules.opposition,
        "opposition_exception": permit.rules.opposition_exception,
        "small_cell": permit.rules.small_cell,
        "dpia": permit.rules.dpia,
        "ethics": permit.rules.ethics,
        "hosting": f"{permit.hosting.provider} ({permit.hosting.country})",
        "is_countersigned": digest in dossier.countersigned,
    }


def _seats(study: Study, dossier: Dossier) -> list[Json]:
    known = {seat.name: seat.key for seat in dossier.roster.sites}
    return [
        {
            "name": site.name,
            "patients": site.patients,
            "fingerprint": fingerprint(known[site.name]) if site.name in known else "",
        }
        for site in study.file.sites
    ]


def _permit_line(dossier: Dossier, reference: str) -> Json:
    digest, permit = dossier.permits[reference][-1]
    return {
        "reference": reference,
        "version": permit.permit.version,
        "state": _state(permit),
        "digest": digest,
        "authority": permit.permit.authority,
        "valid_until": permit.use.valid_until.isoformat(),
        "is_countersigned": digest in dossier.countersigned,
    }


def _state(permit: Permit) -> str:
    return permit_state(permit, day_of(time.time()))


def _person(person: Person) -> Json:
    return {
        "name": person.name,
        "role": person.role,
        "fingerprint": fingerprint(person.key),
    }


def _today(records: SiteRecords) -> dt.date:
    return day_of(max(time.time(), records.latest_at()))
