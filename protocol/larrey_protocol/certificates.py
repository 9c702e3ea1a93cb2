"""X.509 certificates for mutual TLS: an authority, a server, and one per site or operator.

The authority authenticates transport only; what may run at a site is decided by signatures under
the consortium's key. Keys are EC P-256, which TLS 1.3 and Flower's node registry both take.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "CLIENT_DAYS",
    "Credential",
    "authority_fingerprint",
    "expiry_of",
    "is_due",
    "is_issued_by",
    "issue_client",
    "issue_for_request",
    "issue_server",
    "key_bytes",
    "make_authority",
    "make_request",
    "public_key_of",
    "reissue_client",
    "reissue_server",
    "replace_file",
    "request_key",
]

CLIENT_DAYS = 90
_BACKDATE = dt.timedelta(minutes=5)  # clocks of hospitals differ by minutes
_MAX_REQUEST_BYTES = 8 << 10  # an honest one has about 400 bytes


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def make_authority(name: str, *, now: dt.datetime, days: int = 3650) -> Credential:
    """Return a self-signed certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign=True), critical=True)
    return _seal(builder, key, key)


def issue_server(
    authority: Credential, hosts: Sequence[str], *, now: dt.datetime, days: int = 365
) -> Credential:
    """Return a server credential for DNS names and IP addresses."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    names = x509.SubjectAlternativeName([_host(host) for host in hosts])
    return _issue(authority, hosts[0], now, days, [(usage, False), (names, False)])


def issue_client(
    authority: Credential, name: str, *, now: dt.datetime, days: int = CLIENT_DAYS
) -> Credential:
    """Return a client credential for one site or operator."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return _issue(authority, name, now, days, [(usage, False)])


def make_request(name: str) -> tuple[bytes, bytes]:
    """Return a request for a client certificate and the new private key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM), _private(key)


def request_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a certificate request that its holder signed.

    Raises:
        ValueError: not a request, not signed by its own key, or not a P-256 key.
    """
    if len(request) > _MAX_REQUEST_BYTES:
        raise ValueError("the certificate request is too long")
    found = x509.load_pem_x509_csr(request)
    try:
        key = found.public_key()
        is_p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        if is_p256 and found.is_signature_valid:
            return key  # type: ignore[return-value] # checked above
    except UnsupportedAlgorithm:
        pass  # a curve that nobody uses
    raise ValueError("expected a request signed by its own P-256 key")


def issue_for_request(
    authority: Credential, request: bytes, name: str, *, now: dt.datetime, days: float = CLIENT_DAYS
) -> bytes:
    """Return a client certificate for a request's key; its name is ours to say, not the request's.

    Raises:
        ValueError: as `request_key`.
    """
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = _leaf(authority, name, request_key(request), now, days, [(usage, False)])
    return _sign(builder, _authority_key(authority))


def reissue_client(
    authority: Credential, certificate: bytes, name: str, *, now: dt.datetime, days: float
) -> bytes:
    """Return a client certificate with the same key as ``certificate``, valid anew.

    Raises:
        ValueError: as `public_key_of`.
    """
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = _leaf(authority, name, public_key_of(certificate), now, days, [(usage, False)])
    return _sign(builder, _authority_key(authority))


def reissue_server(
    authority: Credential, certificate: bytes, *, now: dt.datetime, days: int = 365
) -> bytes:
    """Return a server certificate with the same key and hosts as ``certificate``, valid anew."""
    old = x509.load_pem_x509_certificate(certificate)
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    common = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    extensions = [(usage, False), (names, False)]
    key = public_key_of(certificate)
    builder = _leaf(authority, str(common), key, now, days, extensions)
    return _sign(builder, _authority_key(authority))


def is_due(certificate: bytes, now: dt.datetime) -> bool:
    """Return whether less than a third of a certificate's life is left."""
    found = x509.load_pem_x509_certificate(certificate)
    life = found.not_valid_after_utc - found.not_valid_before_utc
    return found.not_valid_after_utc - now < life / 3


def expiry_of(certificate: bytes) -> float:
    """Return when a certificate ends, in seconds since 1970."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()


def is_issued_by(certificate: bytes, authorities: bytes) -> bool:
    """Return whether one of the authorities in a PEM bundle signed the certificate."""
    found = x509.load_pem_x509_certificate(certificate)
    for authority in x509.load_pem_x509_certificates(authorities):
        with suppress(ValueError, TypeError, InvalidSignature):
            found.verify_directly_issued_by(authority)
            return True
    return False


def authority_fingerprint(authority: bytes) -> str:
    """Return what two people read to each other: five groups of four base32 characters."""
    digest = x509.load_pem_x509_certificate(authority).fingerprint(hashes.SHA256())
    text = base64.b32encode(digest).decode()[:20]
    return "-".join(text[i : i + 4] for i in range(0, 20, 4))


def key_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key in its one DER form, by which a caller is known."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put a new file in the place of an old one, durably and at once."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def public_key_of(certificate: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key of a PEM certificate; its holder is who the caller is.

    Raises:
        ValueError: not a certificate, or not an elliptic-curve key.
    """
    key = x509.load_pem_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("expected an elliptic-curve key")  # noqa: TRY004
    return key


def _issue(
    authority: Credential,
    name: str,
    now: dt.datetime,
    days: int,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> Credential:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(authority, name, key.public_key(), now, days, extensions)
    return _seal(builder, key, _authority_key(authority))


def _leaf(
    authority: Credential,
    name: str,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: float,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.CertificateBuilder:
    """Return the certificate of ``name`` and ``key`` under an authority, not yet signed."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    builder = _builder(_name(name), issuer.subject, key, now, days)
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    for extension, critical in [(constraints, True), (_usage(sign=False), True), *extensions]:
        builder = builder.add_extension(extension, critical=critical)
    return builder


def _authority_key(authority: Credential) -> ec.EllipticCurvePrivateKey:
    signer = serialization.load_pem_private_key(authority.key, password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not an elliptic-curve key")  # noqa: TRY004
    return signer


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _seal(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> Credential:
    return Credential(_sign(builder, signer), _private(key))


def _sign(builder: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey) -> bytes:
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )
