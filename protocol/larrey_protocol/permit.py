"""The permit: the authority's leave to use data, as the consortium states it, version by version.

A permit is a claim until a site's data protection officer has countersigned it together with the
digest of the authority's own document. Every change is a new version that names the one before;
all are kept. Fields follow the EHDS data permit (Regulation (EU) 2025/327, articles 53, 61 and 68)
and the TEHDAS2 permit annex; `legal_basis` also names the French references.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from larrey_protocol.canonical import DIGEST
from larrey_protocol.errors import IntegrityError
from larrey_protocol.people import PersonName
from larrey_protocol.study import PermitReference, Purpose, SiteName
from larrey_protocol.tomlfile import Record

__all__ = ["Countersignature", "Permit", "PermitState", "permit_state", "succeeds"]

Digest = Annotated[str, Field(pattern=DIGEST.pattern)]
PermitState = Literal["GRANTED", "AMENDED", "RENEWED", "REVOKED", "EXPIRED", "NOT-YET-VALID"]
Text = Annotated[str, Field(min_length=2, max_length=300)]


class Decision(Record):
    """Which decision of which authority, and which version of it this is."""

    reference: PermitReference
    version: int = Field(1, ge=1)
    state: Literal["GRANTED", "AMENDED", "RENEWED", "REVOKED"] = "GRANTED"
    previous: str = Field(
        "", pattern=r"^(sha256:[0-9a-f]{64})?$"
    )  # signed digest; empty in the first
    authority: Text
    decided_on: dt.date


class Use(Record):
    """What the data may be used for, by whom, until when. Days are in UTC, both ends included."""

    legal_basis: Literal[
        "ehds-permit",
        "cnil-mr-001",
        "cnil-mr-003",
        "cnil-mr-004",
        "cnil-authorisation",
        "internal",
    ]
    purposes: tuple[Purpose, ...] = Field(min_length=1)
    intended_use: Literal["research", "product-development", "real-world-test"] = "research"
    controllers: tuple[Text, ...] = Field(min_length=1, max_length=100)
    people: tuple[PersonName, ...] = Field(min_length=1, max_length=1000)  # as on the roster
    valid_from: dt.date
    valid_until: dt.date
    retention_until: dt.date  # of checkpoints and models held by the coordinator

    @model_validator(mode="after")
    def _ordered(self) -> Use:
        if not self.valid_from <= self.valid_until <= self.retention_until:
            raise ValueError("needs valid_from <= valid_until <= retention_until")
        return self


class PermitDataset(Record):
    """A dataset that the permit covers, by the name that its site gives it."""

    site: SiteName
    dataset: SiteName


class Rules(Record):
    """Conditions under which the data may be used."""

    opposition: Literal["permit", "round", "none"] = "permit"  # which opt-outs count: see contract
    opposition_exception: str = Field("", max_length=300)  # legal reference, needed for "none"
    small_cell: int = Field(11, ge=1, le=1000)
    dpia: Text  # reference of the impact assessment
    ethics: Text  # reference of the ethics opinion, or why none is needed

    @model_validator(mode="after")
    def _exception(self) -> Rules:
        if (self.opposition == "none") != bool(self.opposition_exception):
            raise ValueError("opposition = 'none' needs opposition_exception, and only it does")
        return self


class Hosting(Record):
    """Where the coordinator stands."""

    provider: Text
    country: str = Field(pattern=r"^[A-Z]{2}$")  # ISO 3166-1
    certification: str = Field("", max_length=200)  # e.g. HDS


class Permit(Record):
    """One version of a permit; kind ``permit``, signed under the consortium's key."""

    permit: Decision
    use: Use
    datasets: tuple[PermitDataset, ...] = Field(min_length=1, max_length=10_000)
    rules: Rules
    hosting: Hosting

    @property
    def reference(self) -> str:
        """Return the authority's number, the same in all versions."""
        return self.permit.reference

    def covers(self, site: str, dataset: str) -> bool:
        """Return whether this dataset of this site may be used."""
        return any((d.site, d.dataset) == (site, dataset) for d in self.datasets)


class Countersignature(Record):
    """A site's officer says: this permit is what the authority's document says; signed by them."""

    permit: Digest  # digest of the signed permit
    document: Digest  # of the authority's document, byte for byte
    site: SiteName
    person: PersonName
    at: float


def permit_state(permit: Permit, day: dt.date) -> PermitState:
    """Return how the newest version of a permit stands on a day."""
    if permit.permit.state == "REVOKED":
        return "REVOKED"
    if day > permit.use.valid_until:
        return "EXPIRED"
    if day < permit.use.valid_from:
        return "NOT-YET-VALID"
    return permit.permit.state


def succeeds(versions: Sequence[tuple[str, Permit]], new: Permit) -> None:
    """Return if ``new`` is the next version after ``versions`` (digest, permit), oldest first.

    Raises:
        IntegrityError: ``permit-chain-broken`` for a gap, a fork or a change after revocation.
    """
    number, previous = len(versions) + 1, versions[-1][0] if versions else ""
    is_first = not versions
    fits = (new.permit.version, new.permit.previous) == (number, previous)
    named = is_first == (new.permit.state == "GRANTED") and all(
        old.reference == new.reference for _, old in versions
    )
    open_ = is_first or versions[-1][1].permit.state != "REVOKED"
    if not (fits and named and open_):
        raise IntegrityError(
            "permit-chain-broken",
            f"version {new.permit.version} ({new.permit.state}) of permit {new.reference} does not"
            f" follow the {len(versions)} versions known here",
            "Start from the newest version: larrey permit history.",
        )
