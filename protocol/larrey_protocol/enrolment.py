"""How a hospital comes in: invitation, request, admission.

The *invitation* is one small secret file, good for one join within some days. Its certificate and
key authenticate the join and nothing else. The *request* carries what was made at the hospital:
public halves only, signed by the site's new signing key, so that nobody asks in its name later. By
mail it also carries a proof under the invitation's key: who merely reads the request's mail cannot
put their own keys in its place. The *admission* is the certificate that comes back; no secret.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from larrey_protocol.canonical import canonical_json
from larrey_protocol.certificates import is_issued_by, key_bytes, public_key_of, request_key
from larrey_protocol.errors import FileError, IntegrityError, Refusal
from larrey_protocol.keys import PublicKey
from larrey_protocol.signed import Signed, open_signed
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record, validate

__all__ = [
    "Address",
    "Admission",
    "Invitation",
    "JoinRequest",
    "MailedRequest",
    "check_admission",
    "open_request",
    "prove",
    "read_record",
    "verify_proof",
]

Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+:\d{1,5}$")]
Pem = Annotated[str, Field(max_length=32 << 10)]
InvitationId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_MAX_BYTES = 128 << 10
_RecordT = TypeVar("_RecordT", bound=Record)


class Invitation(Record):
    """The content of ``site.invite``; a secret until it was used or has expired."""

    kind: Literal["larrey-invitation"] = "larrey-invitation"
    invitation: InvitationId
    site: SiteName
    address: Address
    authority: Pem  # certificate of the authority that authenticates transport
    consortium: PublicKey  # the root of trust; its fingerprint is compared by phone
    certificate: Pem  # authenticates Enrolment.Join, once
    key: Pem
    expires_at: float  # seconds since 1970


class JoinRequest(Record):
    """What a site asks for; signed by its signing key, at a renewal by the one that is known."""

    invitation: str = Field(pattern=r"^([0-9a-f]{32})?$")  # empty at a renewal
    site: SiteName
    request: Annotated[str, Field(max_length=8 << 10)]  # certificate request, PEM
    signing_key: PublicKey
    at: float


class MailedRequest(Record):
    """A signed `JoinRequest` on its way by mail, with a signature of the invitation's key."""

    kind: Literal["larrey-join-request"] = "larrey-join-request"
    request: Signed
    proof: Annotated[str, Field(max_length=200)]


class Admission(Record):
    """The site's certificate on its way back; the authority's as it is now."""

    kind: Literal["larrey-admission"] = "larrey-admission"
    site: SiteName
    certificate: Pem
    authority: Pem


def read_record(data: bytes, model: type[_RecordT], where: str) -> _RecordT:
    """Return the JSON file's content as ``model``.

    Raises:
        FileError: ``invalid-file`` or ``unknown-key``.
    """
    try:
        found = json.loads(data[:_MAX_BYTES])  # cut short, a longer one is no JSON
    except (ValueError, RecursionError) as error:
        raise FileError(
            "invalid-file", f"{where} is not the JSON file that was expected", "Ask for it again."
        ) from error
    return validate(found, model, where)


def open_request(signed: Signed) -> JoinRequest:
    """Return a request that is signed by the very key it announces.

    Raises:
        IntegrityError: as `open_signed`; ``malformed-document`` if the certificate request is bad.
    """
    request = open_signed(signed, JoinRequest, signed.signer)
    if request.signing_key != signed.signer:
        raise IntegrityError("wrong-signer", "a join request is signed by another key than its own")
    try:
        request_key(request.request.encode())
    except ValueError as error:
        raise IntegrityError("malformed-document", "a certificate request is malformed") from error
    return request


def prove(signed: Signed, key: bytes) -> str:
    """Return the signature of the invitation's private key (PEM) under a signed request."""
    private = serialization.load_pem_private_key(key, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise FileError("invalid-key", "the invitation's key is not an elliptic-curve key")
    signature = private.sign(_proven(signed), ec.ECDSA(hashes.SHA256()))
    return base64.urlsafe_b64encode(signature).decode()


def verify_proof(mailed: MailedRequest, key: ec.EllipticCurvePublicKey) -> None:
    """Return if the invitation's key signed this request.

    Raises:
        IntegrityError: ``bad-signature``.
    """
    try:
        signature = base64.urlsafe_b64decode(mailed.proof)
        key.verify(signature, _proven(mailed.request), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(
            "bad-signature",
            "the request was not made with the invitation that it names",
            "Ask the hospital by phone whether it made this file.",
        ) from error


def check_admission(admission: Admission, site: str, request: bytes) -> None:
    """Return if the certificate is for this site's own key and from the authority beside it.

    Raises:
        Refusal: ``admission-not-ours``.
    """
    certificate = admission.certificate.encode()
    try:
        is_ours = (
            admission.site == site
            and key_bytes(public_key_of(certificate)) == key_bytes(request_key(request))
            and is_issued_by(certificate, admission.authority.encode())
        )
    except ValueError:
        is_ours = False
    if not is_ours:
        raise Refusal(
            "admission-not-ours",
            f"the certificate that came back is not for the key that {site} made",
            "Ask the consortium for the admission of this site.",
        )


def _proven(signed: Signed) -> bytes:
    return b"larrey.v1.joinproof\n" + canonical_json(signed.model_dump(mode="json"))
