"""Who may speak to the coordinator: sites and operators, known by their certificate's public key.

The name in a certificate means nothing here; the key does. A key that is not listed is nobody,
whoever issued its certificate. Members come and go while the coordinator runs: each change puts a
new view in the place of the old one, so that a reader never sees half of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from larrey_protocol.certificates import expiry_of, key_bytes, public_key_of
from larrey_protocol.errors import FileError
from larrey_server.members import Member, MemberRow, View, fold
from larrey_server.settings import CoordinatorSettings, OperatorEntry, SiteEntry

__all__ = ["Member", "Registry", "public_key"]

_MAX_CACHED = 4096  # certificates; a registry is far smaller


class Registry:
    """The registered callers of one coordinator; thread-safe."""

    def __init__(self, listed: Iterable[Member], clock: Callable[[], float] = time.time) -> None:
        self._listed = tuple(listed)
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: tuple[MemberRow, ...] = ()
        self._seen: dict[bytes, tuple[bytes, float]] = {}  # certificate -> its key and end
        self.view: View = fold(self._listed, ())

    @classmethod
    def from_settings(
        cls, settings: CoordinatorSettings, clock: Callable[[], float] = time.time
    ) -> Registry:
        """Return the registry that the settings list.

        Raises:
            FileError: ``invalid-certificate``, or ``key-listed-twice`` when two members share one.
        """
        members: dict[bytes, Member] = {}
        entries: list[SiteEntry | OperatorEntry] = [*settings.sites, *settings.operators]
        for entry in entries:
            member = _member(entry)
            if member.transport_key in members:
                other = members[member.transport_key].name
                raise FileError(
                    "key-listed-twice",
                    f"'{entry.name}' and '{other}' have the same certificate key",
                    "Issue each its own certificate.",
                )
            members[member.transport_key] = member
        return cls(members.values(), clock)

    @property
    def sites(self) -> Mapping[str, Member]:
        """Return the sites that are members now."""
        return self.view.sites

    def follow(self, *rows: MemberRow) -> None:
        """Take in further steps of memberships, oldest first."""
        with self._lock:
            self._rows = (*self._rows, *rows)
            self.view = fold(self._listed, self._rows)

    def by_certificate(self, pem: bytes) -> Member | None:
        """Return whose certificate this is, None if nobody's or if it has ended."""
        seen = self._seen.get(pem)
        if seen is None:
            try:
                seen = key_bytes(public_key_of(pem)), expiry_of(pem)
            except ValueError:
                return None
            if len(self._seen) < _MAX_CACHED:
                self._seen[pem] = seen
        key, expires_at = seen
        return self.view.keys.get(key) if self._clock() < expires_at else None

    def end_of(self, pem: bytes) -> float:
        """Return when a certificate ends that `by_certificate` knew, seconds since 1970; 0 else."""
        return self._seen.get(pem, (b"", 0.0))[1]


def public_key(member_key: bytes) -> ec.EllipticCurvePublicKey:
    """Return a member's transport key as a key."""
    key = load_der_public_key(member_key)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("expected an elliptic-curve key")  # noqa: TRY004
    return key


def _member(entry: SiteEntry | OperatorEntry) -> Member:
    try:
        key = key_bytes(public_key_of(entry.certificate.read_bytes()))
    except ValueError as error:
        raise FileError(
            "invalid-certificate",
            f"{entry.certificate} of '{entry.name}' is not a certificate with an EC key",
            "Ask its owner for the PEM certificate.",
        ) from error
    if isinstance(entry, SiteEntry):
        return Member(entry.name, "site", entry.key, key)
    return Member(entry.name, "operator", "", key)
