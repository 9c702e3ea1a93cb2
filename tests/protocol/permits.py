"""A permit and a roster that fit the tiny study; `permit(...)` replaces values by dotted key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person
from larrey_protocol.permit import Permit
from larrey_protocol.roster import Roster, Seat
from larrey_protocol.signed import Signed, sign

CONSORTIUM = SigningKey.generate()
ADA, BEN, EVE = (SigningKey.generate() for _ in range(3))  # lead, member, nobody
DAY = dt.date(2026, 6, 15)

PERMIT: dict[str, Any] = {
    "permit": {"reference": "test/1", "authority": "An authority", "decided_on": "2026-01-01"},
    "use": {
        "legal_basis": "internal",
        "purposes": ["scientific-research"],
        "controllers": ["A consortium"],
        "people": ["ada", "ben"],
        "valid_from": "2026-02-01",
        "valid_until": "2026-12-31",
        "retention_until": "2027-12-31",
    },
    "datasets": [{"site": "alpha", "dataset": "tiny"}, {"site": "beta", "dataset": "tiny"}],
    "rules": {"dpia": "DPIA 1", "ethics": "none needed: synthetic data"},
    "hosting": {"provider": "A provider", "country": "FR"},
}
PEOPLE = (
    Person(name="ada", role="lead", key=ADA.public),
    Person(name="ben", role="member", key=BEN.public),
)


def permit(**changes: Any) -> Permit:
    """Return the permit with values replaced; ``use__people=[...]`` sets use.people."""
    document = {k: (dict(v) if isinstance(v, dict) else v) for k, v in PERMIT.items()}
    for path, value in changes.items():
        table, _, key = path.partition("__")
        if key:
            document[table][key] = value
        else:
            document[table] = value
    return Permit.model_validate(document)


def following(before: Signed, **changes: Any) -> Permit:
    """Return the version after a signed one, AMENDED unless the changes say otherwise."""
    number = Permit.model_validate_json(before.document).permit.version + 1
    own = {"permit__version": number, "permit__previous": before.digest, "permit__state": "AMENDED"}
    return permit(**(own | changes))


def signed_permit(key: SigningKey = CONSORTIUM, **changes: Any) -> Signed:
    """Return the permit signed."""
    return sign(permit(**changes), key)


def roster(
    sites: Sequence[str] = ("alpha", "beta"), version: int = 1, people: Sequence[Person] = PEOPLE
) -> Roster:
    """Return a roster of sites whose keys nobody holds."""
    seats = tuple(Seat(name=name, key=SigningKey.generate().public) for name in sites)
    return Roster(version=version, issued_at=0.0, sites=seats, people=tuple(people))
