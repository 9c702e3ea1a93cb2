"""What persons and sites sign about studies: approvals, orders, registrations, deletions, anchors.

Kinds of signed documents beside those of `larrey_protocol.signed`; each says who signs it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from larrey_protocol.canonical import DIGEST, LARGEST
from larrey_protocol.people import PersonName
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record

__all__ = [
    "Anchor",
    "AnchoredSpend",
    "Approval",
    "Deleted",
    "DeletionReceipt",
    "Departure",
    "Order",
    "PolicySignature",
    "Registration",
    "SiteOrder",
    "Verb",
]

Digest = Annotated[str, Field(pattern=DIGEST.pattern)]
DigestOrNone = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Head = Annotated[str, Field(pattern=r"^\d{1,12}:(sha256:[0-9a-f]{64})?$")]


Verb = Literal[
    "launch", "pause", "halt", "resume", "close", "withdraw", "release",
    "exclude", "include", "extend", "retry",  # on call: they let nothing more leave a site
]  # fmt: skip


class Approval(Record):
    """A person's word about a study at their site; signed by that person; stays at the site.

    Binds all that was shown: the study, the permit's version, the seats of all its sites and the
    dataset. An approval of anything else is an approval of something else.
    """

    study: Digest
    permit: DigestOrNone  # digest of the signed permit; empty in a refusal
    seats: DigestOrNone  # `Roster.seats_digest` of the study's sites
    site: SiteName
    dataset: str = Field(pattern=r"^([a-z][a-z0-9-]{1,40})?$")  # empty in a refusal
    decision: Literal["approved", "refused", "revoked"]
    person: PersonName
    at: float


class Order(Record):
    """A consortium person's order about a study; signed by that person, who is on the roster.

    ``number`` grows with every order about a study, so that an old one cannot be shown again.
    """

    study: Digest
    number: int = Field(ge=1, le=LARGEST)
    verb: Verb
    subject: str = Field("", max_length=80)  # a site, the digest of a released model, seconds
    reason: str = Field("", max_length=200)  # in the person's words, for the record
    person: PersonName
    at: float


class SiteOrder(Record):
    """A site person's order to their own node that needs a key: resume after a halt, leave, adopt.

    Signed by that person. ``subject``: digest of a study, of an anchor, or a family; empty = all.
    """

    site: SiteName
    verb: Literal["resume", "leave", "adopt", "split-family", "consortium-key"]
    subject: str = Field("", max_length=120)
    after: Head  # audit head of the site when it was signed: it cannot be shown again
    person: PersonName
    at: float


class PolicySignature(Record):
    """A site person's signature under one version of the site's policy; see the site's charter."""

    site: SiteName
    version: int = Field(ge=1)
    policy: Digest  # of the charter
    person: PersonName
    at: float


class Registration(Record):
    """A dataset is placed in a cohort family; signed by the site's data protection officer."""

    site: SiteName
    dataset: SiteName
    unit: str = Field(max_length=61)
    patients: Digest  # of the sorted keyed hashes; never leaves the site
    epsilon: float = Field(gt=0, le=100)  # per unit at this site, add/remove, for all work ever
    delta: float = Field(gt=0, lt=0.01)
    person: PersonName
    at: float


class AnchoredSpend(Record):
    """What one cohort family had used, in the ledger's whole units."""

    family: SiteName  # a tag of its name under the site's own key; names stay at the site
    units: int = Field(ge=0)


class Anchor(Record):
    """Where a site's ledger and audit trail stood; signed by the site, kept outside it."""

    site: SiteName
    ledger_head: Head
    audit_head: Head
    spent: tuple[AnchoredSpend, ...] = Field((), max_length=1000)
    at: float


class Deleted(Record):
    """One thing that was deleted."""

    kind: Literal[
        "answer", "snapshot", "cache", "checkpoint", "model", "upload", "payload", "state"
    ]
    digest: DigestOrNone = ""  # of its content, where it is known
    bytes: int = Field(ge=0)


class DeletionReceipt(Record):
    """What a site or the coordinator deleted when a study was closed; signed by it."""

    study: Digest
    by: SiteName
    items: tuple[Deleted, ...] = Field(max_length=100_000)
    at: float


class Departure(Record):
    """A site ends its membership; signed by the site."""

    site: SiteName
    at: float
