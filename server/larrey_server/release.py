"""The release bundle: everything signed that says how a model came about, in one file.

Offline and by anybody: who let data be used (permits), who proposed, who launched, what each site
contributed (certificate), and the second person who released the model. Pure: values in, values
out; `larrey_server.cli_versions` fetches, orders and writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import Field

from larrey_protocol.decisions import Order
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.keys import fingerprint
from larrey_protocol.lawful import unlawful
from larrey_protocol.permit import Permit, succeeds
from larrey_protocol.roster import EMPTY, KeyChange, Roster, open_under
from larrey_protocol.signed import Certificate, Proposal, Signed, open_signed
from larrey_protocol.study import Study
from larrey_protocol.tomlfile import Record

__all__ = ["Bundle", "verify_bundle"]

_RecordT = TypeVar("_RecordT", bound=Record)


class Bundle(Record):
    """Signed documents, oldest first within their kind."""

    format: Literal["larrey-release-1"] = "larrey-release-1"
    documents: tuple[Signed, ...] = Field(max_length=10_000)

    def of(self, kind: str) -> tuple[Signed, ...]:
        """Return the documents of a kind."""
        return tuple(document for document in self.documents if document.kind == kind)


@dataclass(frozen=True, slots=True)
class _Law:
    """The consortium's keys and rosters as they followed each other."""

    times: tuple[tuple[str, Roster], ...]

    @classmethod
    def of(cls, documents: Sequence[Signed], anchor: str) -> _Law:
        key, roster = anchor, EMPTY
        times = [(key, roster)]
        for signed in documents:
            if signed.kind == "keychange" and signed.signer == key:
                key = open_signed(signed, KeyChange, key).new
            elif signed.kind == "roster":
                roster = open_signed(signed, Roster, key)
            times.append((key, roster))
        return cls(tuple(times))

    def require_lawful(self, study: Study, permits: Sequence[Permit], signer: str) -> None:
        """Return if some roster and version of the permit once let this person run the study.

        Raises:
            Refusal: a code of `larrey_protocol.lawful`, of the newest version.
        """
        reasons = [
            unlawful(
                study, permit, day=permit.use.valid_from, roster=roster, signer=signer,
                consortium=key,
            )
            for key, roster in self.times
            for permit in permits
        ]  # fmt: skip
        if None not in reasons and reasons[-1] is not None:
            raise Refusal(*reasons[-1])

    def open(self, signed: Signed, model: type[_RecordT], right: str) -> _RecordT:
        """Return a document that was signed with a right at some time, newest time first."""
        problem: LarreyError = IntegrityError("wrong-signer", "nobody vouches for a signer")
        for key, roster in reversed(self.times):
            try:
                return open_under(signed, model, right, consortium=key, roster=roster)
            except LarreyError as error:
                problem = error
        raise problem


def verify_bundle(bundle: Bundle, anchor: str = "") -> dict[str, Any]:  # Any: JSON
    """Return what a bundle proves.

    Args:
        bundle: as read.
        anchor: the consortium's public key; where it is empty, the one under the first roster,
            whose fingerprint the caller then compares by phone.

    Raises:
        IntegrityError: a signature, a chain, or ``bundle-incomplete``: a piece is missing or the
            pieces are not about one model.
        Refusal: ``role-not-allowed``, or a code of `larrey_protocol.lawful`: no version of the
            permit let these persons run this study.
    """
    law_documents = [d for d in bundle.documents if d.kind in {"roster", "keychange"}]
    if not law_documents:
        raise _incomplete("holds no roster")
    anchor = anchor or law_documents[0].signer
    law = _Law.of(law_documents, anchor)
    proposal = _one(bundle, "proposal")
    study = law.open(proposal, Proposal, "propose").study
    sealed = _one(bundle, "certificate")
    certificate = open_signed(sealed, Certificate, sealed.signer)
    versions = tuple(_permits(bundle, law, study.file.study.permit))
    orders = [(signed, law.open(signed, Order, _verb(signed))) for signed in bundle.of("order")]
    launch = _last(orders, "launch", study.digest)
    release = _last(orders, "release", study.digest)
    if certificate.study != study.digest or not certificate.model:
        raise _incomplete("certifies another study, or no model")
    if release[1].subject != certificate.model:
        raise _incomplete("releases another model than the certified one")
    for signed in (proposal, launch[0], release[0]):
        law.require_lawful(study, versions, signed.signer)
    if launch[0].signer == release[0].signer or launch[1].person == release[1].person:
        raise IntegrityError("duties-not-separate", "one person launched and released the study")
    return {
        "study": study.name,
        "digest": study.digest,
        "model": certificate.model,
        "outcome": certificate.outcome,
        "sites": list(certificate.sites),
        "permit": study.file.study.permit,
        "permit_versions": len(versions),
        "launched_by": launch[1].person,
        "released_by": release[1].person,
        "consortium": fingerprint(anchor),
        "coordinator": fingerprint(sealed.signer),
    }


def _permits(bundle: Bundle, law: _Law, reference: str) -> Iterator[Permit]:
    known: list[tuple[str, Permit]] = []
    for signed in bundle.of("permit"):
        permit = law.open(signed, Permit, "permit")
        if permit.reference == reference:
            succeeds(known, permit)
            known.append((signed.digest, permit))
    if not known:
        raise _incomplete(f"holds no permit {reference}")
    return iter([permit for _, permit in known])


def _verb(signed: Signed) -> str:
    return open_signed(signed, Order, signed.signer).verb


def _last(orders: Sequence[tuple[Signed, Order]], verb: str, study: str) -> tuple[Signed, Order]:
    found = [one for one in orders if (one[1].verb, one[1].study) == (verb, study)]
    if not found:
        raise _incomplete(f"holds no order to {verb} the study")
    return found[-1]


def _one(bundle: Bundle, kind: str) -> Signed:
    found = bundle.of(kind)
    if len(found) != 1:
        raise _incomplete(f"holds {len(found)} documents of kind {kind}, not one")
    return found[0]


def _incomplete(what: str) -> IntegrityError:
    return IntegrityError("bundle-incomplete", f"the bundle {what}", "Make it again.")
