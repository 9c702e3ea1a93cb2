"""Versions of a permit at the consortium: the template, what the next one says, its history.

Pure but for `load_filled`; `larrey_server.cli_permit` signs and sends.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from larrey_protocol.errors import Refusal, UsageError
from larrey_protocol.permit import Permit, permit_state
from larrey_protocol.roster import Roster, name_of
from larrey_protocol.signed import Signed, open_signed
from larrey_protocol.tomlfile import read_table, read_text, validate

__all__ = [
    "TEMPLATE",
    "amended",
    "first",
    "history",
    "load_filled",
    "opened",
    "require_known",
    "revoked",
]

Version = tuple[Signed, Permit]

TEMPLATE = """\
# A permit: an authority's leave to use data, as the consortium states it. It counts at a hospital
# once its data protection officer has countersigned it with the authority's own document.
# Replace every value in <angle brackets>: larrey permit sign refuses one that is left. Days are
# written without quotes: 2026-01-31.
# Send it: larrey permit sign permit.toml. Change it later: larrey permit amend permit.toml.

[permit]
reference = "<the authority's number, e.g. FR/2026/0001>"  # the same in all versions
authority = "<name of the authority>"
decided_on = "<day of the decision>"

[use]
# ehds-permit, cnil-mr-001, cnil-mr-003, cnil-mr-004, cnil-authorisation or internal
legal_basis = "<one of these>"
# The purposes of Regulation (EU) 2025/327, article 53: public-interest, policy-making, statistics,
# education, scientific-research, improving-care.
purposes = ["<one or more of these>"]
intended_use = "research"         # or product-development, real-world-test
controllers = ["<name of the data controller>"]
people = ["<name on the roster>"] # who may propose, launch and release: two persons or more
valid_from = "<first day>"        # days in UTC, both included
valid_until = "<last day>"
retention_until = "<last day on which the coordinator may keep models>"

[[datasets]]                      # one entry a dataset, by the name that its site gives it
site = "<name of the site>"
dataset = "<name of its dataset>"

[rules]
opposition = "permit"             # opt-outs as of the permit's date; or "round", or "none" with
                                  # opposition_exception = "legal reference"
small_cell = 11                   # smallest count that may be shown
dpia = "<reference of the impact assessment>"
ethics = "<reference of the ethics opinion, or why none is needed>"

[hosting]                         # where the coordinator stands
provider = "<name of the provider>"
country = "<two letters, e.g. FR>"
certification = "<e.g. HDS; leave the line out where there is none>"
"""


def load_filled(path: Path) -> Permit:
    """Return the permit in a file in which nothing of the template is left.

    Raises:
        UsageError: ``permit-unfilled``, naming the first such field.
        FileError: as `larrey_protocol.tomlfile.load_toml`.
    """
    table = read_table(read_text(path), str(path))
    place = _unfilled(table, "")
    if place:
        raise UsageError(
            "permit-unfilled",
            f"{path}: {place} still has the template's value in <angle brackets>",
            "Write the permit's own value there, and look at the others.",
        )
    return validate(table, Permit, str(path))


def require_known(permit: Permit, roster: Roster) -> None:
    """Return if everybody whom a permit names is on the roster.

    Raises:
        Refusal: ``person-unknown``.
    """
    listed = {person.name for person in roster.people}
    missing = [name for name in permit.use.people if name not in listed]
    if missing:
        raise Refusal(
            "person-unknown",
            f"the permit names {', '.join(missing)}, not on roster version {roster.version}",
            "Correct [use] people, or have them listed first: larrey roster sign roster.toml",
        )


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
            "permit-unchanged",
            f"the file says what version {len(versions)} of the permit says",
            "Change permit.toml first; what stands: larrey permit history " + wanted.reference,
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


def _unfilled(value: Any, place: str) -> str:  # Any: TOML values are recursive
    """Return the place of the first placeholder, empty without one."""
    match value:
        case str() if value.startswith("<"):
            return place
        case dict():
            found = (_unfilled(v, f"{place}.{k}".lstrip(".")) for k, v in value.items())
        case list():
            found = (_unfilled(v, place) for v in value)
        case _:
            return ""
    return next(filter(None, found), "")
