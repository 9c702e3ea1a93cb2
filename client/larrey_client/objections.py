"""What a person does with the opposition list, and what that changes and cannot change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from larrey_client.data.identity import patient_hash
from larrey_client.data.opposition import Entry, Kind, append, day_of, entries, excluded
from larrey_client.data.secret import site_secret
from larrey_client.dossier import read_dossier
from larrey_client.loading import opposition_of
from larrey_client.opposition_trail import tell_trail
from larrey_client.records import SiteRecords
from larrey_client.settings import SiteSettings
from larrey_client.store import open_readonly
from larrey_protocol.errors import FileError
from larrey_protocol.permit import Permit
from larrey_protocol.study import Study

__all__ = ["count_objections", "is_objecting", "record_objections"]

Json = dict[str, Any]  # Any: JSON values are recursive
_CANNOT = (
    "updates already sent: they are part of the studies' models",
    "models already released",
)


def record_objections(
    settings: SiteSettings,
    identifiers: Sequence[str],
    kind: Kind,
    *,
    valid_from: dt.date | None,
    actor: str,
    now: float,
) -> Json:
    """Record objections or their withdrawal, and return what changes and what cannot.

    Identifiers are hashed at once and appear nowhere in the result. The audit trail says who did
    it, and within which band the number of patients lies.

    Raises:
        DataError: ``opposition-unreadable``.
        UsageError: ``state-locked`` where a node starts or ends just now: the list holds, and the
            same command again puts it on the trail too.
    """
    state, first_day = settings.site.state, valid_from or day_of(now)
    secret = site_secret(state)
    hashes = sorted({patient_hash(identifier, secret) for identifier in identifiers})
    append(state, [Entry(patient, kind, first_day, now, actor) for patient in hashes])
    tell_trail(state, kind, len(hashes), actor, now)
    return {
        "recorded": len(hashes),
        "kind": kind,
        "valid_from": first_day.isoformat(),
        "studies": [_effect(study, permit, first_day, now) for study, permit in _running(settings)],
        "cannot_change": list(_CANNOT),
    }


def count_objections(settings: SiteSettings, now: float) -> Json:
    """Return how many patients object today, and how many entries the list has."""
    kept = entries(settings.site.state)
    return {"objecting": len(excluded(kept, day_of(now), now)), "entries": len(kept)}


def is_objecting(settings: SiteSettings, identifier: str, now: float) -> bool:
    """Return whether a patient objects today."""
    patient = patient_hash(identifier, site_secret(settings.site.state))
    return patient in excluded(entries(settings.site.state), day_of(now), now)


def _running(settings: SiteSettings) -> list[tuple[Study, Permit | None]]:
    """Return the approved studies that have not ended, each with its permit."""
    try:
        connection = open_readonly(settings.site.state)
    except FileError:
        return []  # no node ever ran: no study runs
    with closing(connection):
        records = SiteRecords(connection)
        approved = [known.study for known in records.known() if known.state == "approved"]
        dossier = read_dossier(records, settings.consortium.key)
        return [(study, dossier.permit(study.file.study.permit)[1]) for study in approved]


def _effect(study: Study, permit: Permit | None, first_day: dt.date, now: float) -> Json:
    rule, day = opposition_of(study.contract, permit, now)
    if day is None:
        changes = "nothing: this study's permit sets objections aside"
    elif rule == "round":
        changes = "every round from that day on"
    elif first_day <= day:
        changes = "every later round"
    else:
        changes = "nothing: only objections up to the permit's day count"
    return {"study": study.name, "as_of": rule, "day": str(day or ""), "changes": changes}
