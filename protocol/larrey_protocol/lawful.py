"""Whether a permit lets a study be run: one pure rule for consortium, coordinator and hospital.

The coordinator asks it before it passes a proposal on and before a launch; each hospital's gate
asks the same function again, about its own dataset, before it touches data. The permit handed in is
the newest version known to whoever asks.
"""

from __future__ import annotations

import datetime as dt

from larrey_protocol.people import find_person
from larrey_protocol.permit import Permit, permit_state
from larrey_protocol.roster import Roster
from larrey_protocol.study import Study

__all__ = ["UNLAWFUL", "Reason", "is_named", "not_in_force", "unlawful"]

Reason = tuple[str, str]  # stable code, one sentence

# Every code that `unlawful` answers with.
UNLAWFUL = frozenset(
    {
        "permit-unknown",
        "permit-revoked",
        "permit-expired",
        "permit-not-yet-valid",
        "purpose-not-permitted",
        "site-not-on-roster",
        "site-not-permitted",
        "dataset-not-permitted",
        "person-not-permitted",
    }
)


def unlawful(  # noqa: PLR0913 - the facts of one question, by name
    study: Study,
    permit: Permit | None,
    *,
    day: dt.date,
    roster: Roster,
    signer: str,
    consortium: str,
    site: str | None = None,
    dataset: str | None = None,
) -> Reason | None:
    """Return code and sentence of the first rule that the study breaks, None if it is lawful.

    In this order: the permit is known, in force on ``day`` (UTC), names the study's purpose; every
    invited site is on the roster; every invited site, or ``site`` alone where it is given, is
    covered, and so is its ``dataset``; ``signer``, who proposed or launches, is the consortium's
    key or a person whom roster and permit name.

    Args:
        study: what is to be run.
        permit: newest version, None where none is known.
        day: today in UTC.
        roster: the newest one.
        signer: public key.
        consortium: public key at the root of the roster.
        site: the hospital that asks; None at the consortium and the coordinator.
        dataset: the dataset of that hospital; None before one is chosen.
    """
    if permit is None or permit.reference != study.file.study.permit:
        return "permit-unknown", f"no permit {study.file.study.permit} is known here"
    reasons = (
        not_in_force(permit, day),
        _purpose(study, permit),
        _strangers(study, roster),
        _uncovered(study, permit, site, dataset),
        _unnamed(permit, roster, signer, consortium),
    )
    return next((reason for reason in reasons if reason is not None), None)


def not_in_force(permit: Permit, day: dt.date) -> Reason | None:
    """Return why the permit may not be used on a day (UTC), None if it may."""
    use, name = permit.use, f"permit {permit.reference} version {permit.permit.version}"
    match permit_state(permit, day):
        case "REVOKED":
            return "permit-revoked", f"{name} is revoked"
        case "EXPIRED":
            return "permit-expired", f"{name} ended on {use.valid_until}"
        case "NOT-YET-VALID":
            return "permit-not-yet-valid", f"{name} begins on {use.valid_from}"
    return None


def is_named(permit: Permit, roster: Roster, key: str, *, consortium: str) -> bool:
    """Return whether roster and permit name the owner of this key; the consortium's key is."""
    if key == consortium:
        return True
    person = find_person(roster.people, key)
    return person is not None and person.name in permit.use.people


def _purpose(study: Study, permit: Permit) -> Reason | None:
    purpose, allowed = study.file.study.purpose, permit.use.purposes
    if purpose in allowed:
        return None
    text = f"permit {permit.reference} is for {', '.join(allowed)}, the study for {purpose}"
    return "purpose-not-permitted", text


def _strangers(study: Study, roster: Roster) -> Reason | None:
    listed = {seat.name for seat in roster.sites}
    missing = [name for name in study.file.site_names if name not in listed]
    if not missing:
        return None
    text = f"the study invites {', '.join(missing)}, not on roster version {roster.version}"
    return "site-not-on-roster", text


def _unnamed(permit: Permit, roster: Roster, key: str, consortium: str) -> Reason | None:
    if is_named(permit, roster, key, consortium=consortium):
        return None
    return "person-not-permitted", f"permit {permit.reference} does not name the person who signed"


def _uncovered(
    study: Study, permit: Permit, site: str | None, dataset: str | None
) -> Reason | None:
    covered = {entry.site for entry in permit.datasets}
    asked = study.file.site_names if site is None else (site,)
    if missing := [name for name in asked if name not in covered]:
        text = f"permit {permit.reference} covers no dataset of {', '.join(missing)}"
        return "site-not-permitted", text
    if site is not None and dataset is not None and not permit.covers(site, dataset):
        text = f"permit {permit.reference} does not cover dataset {dataset} of {site}"
        return "dataset-not-permitted", text
    return None
