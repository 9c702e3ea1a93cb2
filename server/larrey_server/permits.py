"""Versions of a permit at the consortium: the template, what the next one says, its history.

Pure: values in, values out; `larrey_server.cli_permit` signs and sends.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from larrey_protocol.errors import Refusal, UsageError
from larrey_protocol.permit import Permit, permit_state
from larrey_protocol.roster import Roster, name_of
from larrey_protocol.signed import Signed, open_signed

__all__ = ["TEMPLATE", "amended", "first", "history", "opened", "revoked"]

Version = tuple[Signed, Permit]

TEMPLATE = """\
# A permit: an authority's leave to use data, as the consortium states it. It counts at a hospital
# once its data protection officer has countersigned it with the authority's own document.
# Send it: larrey permit sign permit.toml. Change it later: larrey permit amend permit.toml.

[permit]
reference = "FR/2026/0001"        # the authority's number; the same in all versions
authority = "Name of the authority"
decided_on = {day}           # the day of the decision

[use]
legal_basis = "ehds-permit"       # or cnil-mr-001, cnil-mr-003, cnil-mr-004, cnil-authorisation,
                                  # internal
# The purposes of Regulation (EU) 2025/327, article 53: public-interest, policy-making, statistics,
# education, scientific-research, improving-care.
purposes = ["scientific-research"]
intended_use = "research"         # or product-development, real-world-test
controllers = ["Name of the data controller"]
people = ["ada", "ben"]           # who may propose, launch and release, as named on the roster
valid_from = {day}           # days in UTC, both included
valid_until = {year_later}
retention_until = {year_later}      # until when the coordinator may keep models

[[datasets]]                      # one entry a dataset, by the name that its site gives it
site = "alpha"
dataset = "heart"

[rules]
opposition = "permit"             # opt-outs as of the permit's date; or "round", or "none" with
                                  # opposition_exception = "legal reference"
small_cell = 11                   # smallest count that may be shown
dpia = "Reference of the impact assessment"
ethics = "Reference of the ethics opinion, or why none is needed"

[hosting]                         # where the coordinator stands
provider = "Name of the provider"
country = "FR"
certification = "HDS"
"""


def opened(documents: Sequence[Signed]) -> tuple[Version, ...]:
    """Return signed permits with what they say, in their order.

    Raises:
        IntegrityError: one does not verify under its own signer.
    """
    return tuple((signed, open_signed(signed, Permit, signed.signer)) for signed in documents)


def first(wanted: Permit, versions: Sequence[Version]) -> Permit:
    """Return the first version of a permit, as its file says it.

    Raises:
        Refusal: ``permit-known``. UsageError: ``permit-not-first``.
    """
    if versions:
        raise Refusal(
            "permit-known",
            f"permit {wanted.reference} has {len(versions)} versions already",
            "Change it: larrey permit amend permit.toml",
        )
    decision = wanted.permit
    if (decision.version, decision.previous, decision.state) != (1, "", "GRANTED"):
        raise UsageError(
            "permit-not-first",
            "a first version is GRANTED, has version 1 and no previous",
            "Leave version, state and previous out of permit.toml.",
        )
    return wanted


def amended(wanted: Permit, versions: Sequence[Version]) -> Permit:
    """Return the next version: RENEWED where only the last days moved later, else AMENDED.

    Raises:
        Refusal: ``permit-unknown``, ``permit-revoked`` or ``permit-unchanged``.
    """
    signed, last = _last(versions, wanted.reference)
    is_longer = (
        wanted.use.valid_until >= last.use.valid_until
        and wanted.use.retention_until >= last.use.retention_until
    )
    only_days = _without_days(wanted) == _without_days(last)
    if only_days and wanted.use == last.use:
        raise Refusal(
            "permit-unchanged", f"the file says what version {len(versions)} of the permit says"
        )
    state = "RENEWED" if only_days and is_longer else "AMENDED"
    return _next(wanted, signed, last, state=state, decided_on=wanted.permit.decided_on)


def revoked(reference: str, versions: Sequence[Version], day: dt.date) -> Permit:
    """Return the version that ends a permit.

    Raises:
        Refusal: ``permit-unknown`` or ``permit-revoked``.
    """
    signed, last = _last(versions, reference)
    return _next(last, signed, last, state="REVOKED", decided_on=day)


def history(
    versions: Sequence[Version], roster: Roster, consortium: str, day: dt.date
) -> list[dict[str, Any]]:  # Any: JSON
    """Return every version with its days, who signed it and how it stands on a day, as JSON."""
    facts = []
    for number, (signed, permit) in enumerate(versions, start=1):
        is_newest = number == len(versions)
        facts.append(
            {
                "reference": permit.reference,
                "version": permit.permit.version,
                "state": permit.permit.state,
                "stands": permit_state(permit, day) if is_newest else "REPLACED",
                "decided_on": permit.permit.decided_on.isoformat(),
                "valid_from": permit.use.valid_from.isoformat(),
                "valid_until": permit.use.valid_until.isoformat(),
                "signed_by": name_of(signed.signer, consortium=consortium, roster=roster),
                "digest": signed.digest,
            }
        )
    return facts


def _last(versions: Sequence[Version], reference: str) -> Version:
    if not versions:
        raise Refusal(
            "permit-unknown",
            f"no permit {reference} is known at the coordinator",
            "Sign the first version: larrey permit sign permit.toml",
        )
    if versions[-1][1].permit.state == "REVOKED":
        raise Refusal("permit-revoked", f"permit {reference} is revoked; that is final")
    return versions[-1]


def _next(said: Permit, signed: Signed, last: Permit, **own: object) -> Permit:
    document = said.model_dump()
    document["permit"] |= {
        "version": last.permit.version + 1,
        "previous": signed.digest,
        **own,
    }
    return Permit.model_validate(document)


def _without_days(permit: Permit) -> dict[str, Any]:  # Any: JSON
    document = permit.model_dump(mode="json")
    for key in ("version", "previous", "state", "decided_on"):
        del document["permit"][key]
    for key in ("valid_until", "retention_until"):
        del document["use"][key]
    return document
