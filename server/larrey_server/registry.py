"""Who may speak to the coordinator: sites and operators, known by their certificate's public key.

The name in a certificate means nothing here; the key does. A key that is not listed is nobody,
whoever issued its certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from larrey_protocol.certificates import public_key_of
from larrey_protocol.errors import FileError
from larrey_server.settings import CoordinatorSettings, OperatorEntry, SiteEntry

__all__ = ["Member", "Registry", "certificate_expiry"]


@dataclass(frozen=True, slots=True)
class Member:
    """A registered caller."""

    name: str
    role: Literal["site", "operator"]
    signing_key: str  # Ed25519 public key of a site; empty for operators
    transport_key: ec.EllipticCurvePublicKey


class Registry:
    """The registered callers of one coordinator."""

    def __init__(self, members: Mapping[bytes, Member]) -> None:
        self._members = MappingProxyType(dict(members))
        self.sites = MappingProxyType(
            {m.name: m for m in self._members.values() if m.role == "site"}
        )

    @classmethod
    def from_settings(cls, settings: CoordinatorSettings) -> Registry:
        """Return the registry that the settings list.

        Raises:
            FileError: ``invalid-certificate``, or ``key-listed-twice`` when two members share one.
        """
        members: dict[bytes, Member] = {}
        entries: list[SiteEntry | OperatorEntry] = [*settings.sites, *settings.operators]
        for entry in entries:
            member = _member(entry)
            spki = _spki(member.transport_key)
            if spki in members:
                raise FileError(
                    "key-listed-twice",
                    f"'{entry.name}' and '{members[spki].name}' have the same certificate key",
                    "Issue each its own certificate.",
                )
            members[spki] = member
        return cls(members)

    def by_certificate(self, pem: bytes) -> Member | None:
        """Return whose certificate this is, None if nobody's."""
        try:
            return self._members.get(_spki(public_key_of(pem)))
        except ValueError:
            return None


def certificate_expiry(pem: bytes) -> float:
    """Return when a certificate ends, in seconds since 1970."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def _member(entry: SiteEntry | OperatorEntry) -> Member:
    try:
        key = public_key_of(entry.certificate.read_bytes())
    except ValueError as error:
        raise FileError(
            "invalid-certificate",
            f"{entry.certificate} of '{entry.name}' is not a certificate with an EC key",
            "Ask its owner for the PEM certificate.",
        ) from error
    if isinstance(entry, SiteEntry):
        return Member(entry.name, "site", entry.key, key)
    return Member(entry.name, "operator", "", key)


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
