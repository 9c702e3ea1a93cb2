"""The node's certificate and key on disk: renewed in time, replaced so that a crash leaves a pair.

A new key waits beside the old one as ``….next`` until its certificate has come; `settle` puts both
in place, or finishes that after a crash. The private key never leaves the machine: a certificate
request does, signed by the site's signing key.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationError

from larrey_client.exchange import Exchange, Tls
from larrey_protocol.certificates import (
    expiry_of,
    is_due,
    key_bytes,
    make_request,
    public_key_of,
    replace_file,
)
from larrey_protocol.enrolment import Admission, JoinRequest, check_admission
from larrey_protocol.errors import FileError, LarreyError, Refusal
from larrey_protocol.keys import SigningKey, read_private
from larrey_protocol.signed import sign
from larrey_protocol.tomlfile import read_text
from larrey_protocol.v1 import larrey_pb2 as wire

if TYPE_CHECKING:
    from larrey_client.settings import Identity, Member

__all__ = ["Renewal", "admission_of", "days_left", "install", "next_of", "read_tls", "settle"]

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 3600.0
_DAY_S = 86400.0


class Renewal:
    """Renews the certificate of a running node when a third of its life is left."""

    def __init__(
        self,
        member: Member,
        key: SigningKey,
        exchange: Exchange,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        renewed: Callable[[float], None],
    ) -> None:
        """Take what a renewal needs; ``renewed`` is told when the new certificate ends."""
        self._member = member
        self._key = key
        self._exchange = exchange
        self._now = now
        self._monotonic = monotonic
        self._renewed = renewed
        self._next_look = float("-inf")

    def look(self) -> bool:
        """Renew if it is due, at most once an hour; return whether there is a new certificate.

        What goes wrong is logged with its code and tried again: there are weeks left.
        """
        if self._monotonic() < self._next_look:
            return False
        self._next_look = self._monotonic() + _LOOK_EVERY_S
        try:
            return self._renew()
        except (LarreyError, OSError, ValueError) as error:
            code = error.code if isinstance(error, LarreyError) else "certificate-not-written"
            logger.warning("the certificate was not renewed code=%s: %s", code, error)
            return False

    def _renew(self) -> bool:
        identity, site, now = self._member.identity, self._member.site, self._now()
        moment = dt.datetime.fromtimestamp(now, dt.UTC)
        if not is_due(identity.certificate.read_bytes(), moment):
            return False
        request, key = make_request(site)
        replace_file(next_of(identity.key), key)  # before asking: a folder may be read-only
        asked = JoinRequest(
            invitation="",
            site=site,
            request=request.decode(),
            signing_key=self._key.public,
            at=now,
        )
        reply = self._exchange.renew(sign(asked, self._key).to_bytes())
        admission = admission_of(reply, site)
        check_admission(admission, site, request)
        install(admission, identity, self._member.coordinator.authority)
        self._exchange.reopen(read_tls(self._member))
        expires_at = expiry_of(admission.certificate.encode())
        logger.info("the certificate was renewed days=%d", (expires_at - now) / _DAY_S)
        self._renewed(expires_at)
        return True


def admission_of(reply: wire.JoinReply, site: str) -> Admission:
    """Return what the coordinator answered to a join or renewal.

    Raises:
        Refusal: with the coordinator's code, or ``admission-not-ours`` if it makes no sense.
    """
    if reply.code:
        with suppress(ValueError):
            raise Refusal(
                reply.code,
                "the coordinator did not issue a certificate",
                "Ask the consortium, and tell it this code.",
            )
    try:
        return Admission(
            site=site,
            certificate=reply.certificate.decode(),
            authority=reply.authority.decode(),
        )
    except (ValueError, ValidationError) as error:
        raise Refusal(
            "admission-not-ours", "the coordinator's answer holds no certificate"
        ) from error


def install(admission: Admission, identity: Identity, authority: Path) -> None:
    """Put a checked certificate, the authority beside it and the waiting key in place."""
    if not authority.exists() or authority.read_bytes() != admission.authority.encode():
        replace_file(authority, admission.authority.encode(), mode=0o644)
    replace_file(next_of(identity.certificate), admission.certificate.encode(), mode=0o644)
    settle(identity)


def settle(identity: Identity) -> None:
    """Finish a replacement that was begun, or drop what came of one that was not finished."""
    key, certificate = identity.key, identity.certificate
    new_key, new_certificate = next_of(key), next_of(certificate)
    if not new_certificate.exists():
        return
    if new_key.exists() and _is_pair(new_certificate, new_key):
        new_key.replace(key)
    if key.exists() and _is_pair(new_certificate, key):
        new_certificate.replace(certificate)
    new_certificate.unlink(missing_ok=True)
    new_key.unlink(missing_ok=True)


def next_of(file: Path) -> Path:
    """Return where the successor of a file waits."""
    return file.with_name(file.name + ".next")


def days_left(identity: Identity, now: float) -> int:
    """Return for how many whole days the certificate is still good; negative once it ended."""
    return int((expiry_of(identity.certificate.read_bytes()) - now) // _DAY_S)


def read_tls(member: Member) -> Tls:
    """Return the PEM files' bytes.

    Raises:
        FileError: ``missing-file``, ``key-exposed`` or ``invalid-certificate``.
    """
    identity = member.identity
    files: list[Path] = [member.coordinator.authority, identity.certificate]
    authority, certificate = (read_text(path).encode() for path in files)
    for path, pem in zip(files, (authority, certificate), strict=True):
        try:
            x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            raise FileError("invalid-certificate", f"{path} is not a certificate") from error
    return Tls(authority, certificate, read_private(identity.key))


def _is_pair(certificate: Path, key: Path) -> bool:
    try:
        public = public_key_of(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), password=None)
    except ValueError:  # cut short by a crash
        return False
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        return False
    return key_bytes(private.public_key()) == key_bytes(public)
