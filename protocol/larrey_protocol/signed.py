"""Documents that one party signs and another checks: proposals, answers, receipts, certificates.

A signature covers the document's kind and its canonical JSON, so that bytes signed for one
purpose can never pass for another.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from larrey_protocol.canonical import DIGEST, canonical_json, digest_bytes
from larrey_protocol.errors import FileError, IntegrityError
from larrey_protocol.keys import SigningKey, verify
from larrey_protocol.study import SiteName, Study
from larrey_protocol.tomlfile import Record, validate

__all__ = [
    "Answer",
    "Certificate",
    "Contribution",
    "Proposal",
    "Receipt",
    "Signed",
    "open_signed",
    "sign",
]

Digest = Annotated[str, Field(pattern=DIGEST.pattern)]
# What every claim about a site's budget carries; `larrey_privacy.ledger_view` says what each means.
Flags = tuple[Literal["unbounded", "family-reset", "adopted"], ...]
_AGAIN = "Ask for it again: it must come byte for byte as it was signed."
_RecordT = TypeVar("_RecordT", bound=Record)


class Proposal(Record):
    """A consortium asks sites to run a study."""

    study: Study
    proposed_at: float  # seconds since 1970, proposer's clock; informative only


class Answer(Record):
    """A site's signed decision about exactly one study, permit version and set of seats.

    The persons who decided are on record at the site; their names do not leave it.
    """

    study: Digest
    permit: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")  # empty in a refusal
    seats: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")  # `Roster.seats_digest`
    site: SiteName
    decision: Literal["approved", "refused", "revoked"]
    code: str = Field(default="", pattern=r"^([a-z][a-z0-9-]{2,47})?$")  # why refused
    answered_at: float


class Receipt(Record):
    """What a site did in one phase of one round, signed by the site.

    Epsilon is per ``unit`` at this site, add/remove neighbours, at ``delta``, by PLD, over all
    rounds of this study reserved so far; -1 where the study has no differential privacy.
    """

    study: Digest
    site: SiteName
    round: int = Field(ge=1)
    phase: str
    model_in: Digest
    update: Digest
    update_bytes: int = Field(ge=0)
    epsilon: float
    delta: float
    accountant: Literal["pld", "none"]
    ledger_head: str  # "<seq>:<hash>": anchors the site's ledger outside the site
    audit_head: str  # "<seq>:<hash>"
    peer_head: str = ""  # the coordinator's last head that this site saw
    permit: str = ""  # digest of the signed permit under which the data were used
    snapshot: str = ""  # commitment to the data, salted by a secret of the site
    flags: Flags = ()  # of the budget used
    software: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")  # source files of the node
    actor: str = Field("", pattern=r"^(ed25519:[A-Za-z0-9_-]{43})?$")  # key of who launched it
    at: float


class Contribution(Record):
    """One cell of the participation matrix."""

    site: SiteName
    round: int
    outcome: Literal[
        "contributed", "late", "refused", "absent", "halted", "waiting", "excluded"
    ]  # waiting: outside its training window; excluded: by a person's order
    code: str = ""  # why not, where not
    epsilon: float = -1.0
    bytes: int = 0
    flags: Flags = ()  # of the budget that the site's receipts name


class Certificate(Record):
    """Who contributed to a study, round by round; signed by the coordinator at the study's end."""

    study: Digest
    name: str
    outcome: Literal["COMPLETE", "PARTIAL", "FAILED"]
    reason: str = ""
    rounds_planned: int
    rounds_applied: int
    sites: tuple[SiteName, ...]
    matrix: tuple[Contribution, ...]
    model: str = ""  # digest of the final model, empty if none
    audit_head: str
    ended_at: float


class Signed(Record):
    """A document's kind, its canonical JSON text, who signed it and the signature."""

    kind: str = Field(pattern=r"^[a-z]{1,40}$")  # quoted in errors and logs
    document: str
    signer: str = Field(max_length=100)
    signature: str = Field(max_length=100)

    @property
    def digest(self) -> str:
        """Return the digest of the signed bytes."""
        return digest_bytes(_message(self.kind, self.document))

    def to_bytes(self) -> bytes:
        """Return the form that travels and is stored."""
        return canonical_json(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Signed:
        """Return a signed document from its travelling form; the signature is not yet checked.

        Raises:
            IntegrityError: ``malformed-document``.
        """
        try:
            signed = validate(json.loads(data), cls, "signed document")
            signed.to_bytes()  # JSON escapes can spell what is no text
        except (FileError, ValueError, RecursionError) as error:
            raise IntegrityError(
                "malformed-document", "expected a signed document", _AGAIN
            ) from error
        return signed


def sign(document: Record, key: SigningKey) -> Signed:
    """Return ``document`` signed by ``key``."""
    kind = type(document).__name__.lower()
    text = canonical_json(document.model_dump(mode="json", by_alias=True)).decode()
    return Signed(
        kind=kind, document=text, signer=key.public, signature=key.sign(_message(kind, text))
    )


def open_signed(signed: Signed, model: type[_RecordT], signer: str) -> _RecordT:
    """Return the document if ``signer`` signed it and it is a ``model``.

    Raises:
        IntegrityError: ``wrong-signer``, ``bad-signature``, ``wrong-document`` or
            ``malformed-document``.
    """
    if signed.signer != signer:
        raise IntegrityError(
            "wrong-signer",
            f"a {signed.kind} is signed by an unexpected key",
            "Compare fingerprints by phone with whoever should have signed it.",
        )
    verify(signer, _message(signed.kind, signed.document), signed.signature)
    if signed.kind != model.__name__.lower():
        raise IntegrityError(
            "wrong-document", f"expected a {model.__name__.lower()}, found a {signed.kind}"
        )
    try:
        document = validate(json.loads(signed.document), model, signed.kind)
    except (FileError, ValueError, RecursionError) as error:
        raise IntegrityError(
            "malformed-document", f"a {signed.kind} is malformed", _AGAIN
        ) from error
    if _text(document) != signed.document:
        raise IntegrityError(
            "malformed-document", f"a {signed.kind} is not in canonical form", _AGAIN
        )
    return document


def _text(document: Record) -> str:
    return canonical_json(_dump(document)).decode()


def _dump(document: Record) -> Any:  # Any: JSON
    return document.model_dump(mode="json", by_alias=True)


def _message(kind: str, text: str) -> bytes:
    return b"larrey.v1." + kind.encode() + b"\n" + text.encode()
