"""An operator's certificate, issued anew for the same key: by the coordinator, or on its machine.

The coordinator knows an operator by the key that coordinator.toml lists, so that a certificate with
another end changes nothing there. While it is valid its holder asks for the next one over the very
connection that it opens; once it ended, whoever administers the coordinator issues it from the
listed one. No private key travels either way.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from larrey_protocol.certificates import (
    expiry_of,
    is_issued_by,
    key_bytes,
    public_key_of,
    reissue_client,
    replace_file,
)
from larrey_protocol.errors import IntegrityError, Refusal, UsageError
from larrey_protocol.newfile import require_new
from larrey_protocol.tomlfile import Record
from larrey_server.membership import OPERATOR_DAYS, Authority
from larrey_server.settings import CoordinatorSettings, OperatorSettings

__all__ = ["Renewed", "days_left", "install", "reissue", "require_current"]

_SOON_DAYS = 30


class Renewed(Record):
    """What the coordinator answers: the next certificate, and the authorities that count, PEM."""

    certificate: str
    authority: str


def days_left(certificate: bytes, now: dt.datetime) -> float:
    """Return how many days a certificate still counts; negative once it ended."""
    return (expiry_of(certificate) - now.timestamp()) / 86400.0


def require_current(settings: OperatorSettings, now: dt.datetime) -> str:
    """Return a warning where the operator's certificate ends within 30 days, else nothing.

    Raises:
        UsageError: ``certificate-expired``; ``invalid-certificate`` for a file that is none.
    """
    file = settings.identity.certificate
    try:
        left = days_left(file.read_bytes(), now)
    except ValueError as error:
        raise UsageError(
            "invalid-certificate", f"{file} is not a PEM certificate", "Put it back from a copy."
        ) from error
    if left <= 0:
        raise UsageError(
            "certificate-expired",
            f"the operator's certificate {file} ended {-left:.0f} days ago",
            "Who administers the coordinator issues it anew: larrey operator reissue NAME",
        )
    if left >= _SOON_DAYS:
        return ""
    return f"the operator's certificate ends in {left:.0f} days: larrey operator renew"


def install(settings: OperatorSettings, renewed: Renewed) -> float:
    """Put the next certificate and the authorities in place; return when it ends.

    Raises:
        IntegrityError: ``certificate-not-ours``; nothing was changed.
    """
    identity, authority = settings.identity, settings.coordinator.authority
    new, old = renewed.certificate.encode(), identity.certificate.read_bytes()
    try:
        is_ours = (
            key_bytes(public_key_of(new)) == key_bytes(public_key_of(old))
            and is_issued_by(new, authority.read_bytes())
            and is_issued_by(new, renewed.authority.encode())
        )
    except ValueError:
        is_ours = False
    if not is_ours:
        raise IntegrityError(
            "certificate-not-ours",
            "the coordinator sent a certificate that is not of this key and authority",
            "Keep the present one, and call who administers the coordinator.",
        )
    replace_file(authority, renewed.authority.encode(), mode=0o644)
    replace_file(identity.certificate, new, mode=0o644)
    return expiry_of(new)


def reissue(settings: CoordinatorSettings, name: str, out: Path, now: dt.datetime) -> float:
    """Write a listed operator's next certificate to a new file; return when it ends.

    Raises:
        Refusal: ``unknown-operator`` or ``authority-absent``. FileError: ``file-exists``.
    """
    require_new(out)
    entry = next((one for one in settings.operators if one.name == name), None)
    if entry is None:
        names = ", ".join(one.name for one in settings.operators) or "nobody"
        raise Refusal("unknown-operator", f"no operator '{name}' is listed", f"Listed: {names}.")
    identity = settings.identity
    issuer = Authority(identity.authority, identity.authority_key).credential()
    certificate = reissue_client(
        issuer, entry.certificate.read_bytes(), name, now=now, days=OPERATOR_DAYS
    )
    replace_file(out, certificate, mode=0o644)
    return expiry_of(certificate)
