"""The coordinator's own certificate on its port; files that change are used without a restart.

gRPC asks before every handshake. Where the authority's key lies here, a certificate with less than
a third of its life left is issued anew, for the same key and hosts, so that one file is replaced.
A file that cannot be read leaves what was there in force and says so in the log.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable

import grpc

from larrey_protocol.certificates import (
    Credential,
    authority_fingerprint,
    expiry_of,
    is_due,
    is_issued_by,
    key_bytes,
    public_key_of,
    reissue_server,
    replace_file,
)
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import read_private
from larrey_server.settings import Identity

__all__ = ["ServerIdentity"]

logger = logging.getLogger(__name__)


class ServerIdentity:
    """What gRPC shows to callers and trusts in them."""

    def __init__(
        self,
        identity: Identity,
        *,
        now: Callable[[], dt.datetime],
        renewed: Callable[[float], None],
    ) -> None:
        """Take files and clock; ``renewed`` is told when the certificate in use ends.

        Raises:
            FileError: a key is missing or open to others.
        """
        self._identity = identity
        self._now = now
        self._renewed = renewed
        self._lock = threading.Lock()
        self._stamp: tuple[object, ...] = ()
        self._certificate = b""
        self._is_troubled = False
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what the port is opened with; callers must show a certificate."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self.refreshed,  # type: ignore[arg-type] # None means no change, say its documents
            require_client_authentication=True,
        )

    def refreshed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new certificate and authorities, None if nothing changed."""
        with self._lock:
            try:
                changed = self._refreshed()
            except (OSError, ValueError, LarreyError) as error:
                if not self._is_troubled:
                    logger.warning("certificate not renewed: %s", error)
                self._is_troubled = True
                return None
            self._is_troubled = False
            return changed

    def _refreshed(self) -> grpc.ServerCertificateConfiguration | None:
        if self._identity.authority_key is not None and is_due(self._certificate, self._now()):
            self._reissue()
        return self._read() if self._stamp_now() != self._stamp else None

    def _reissue(self) -> None:
        identity, old = self._identity, self._certificate
        authority, key = identity.authority.read_bytes(), identity.authority_key
        if key is None or old != identity.certificate.read_bytes():
            return  # somebody else has just put a new one there
        issuer = Credential(authority, read_private(key))
        renewed = reissue_server(issuer, old, now=self._now())
        if not is_issued_by(renewed, authority):
            raise ValueError("the authority's key is not of the first certificate beside it")
        replace_file(identity.certificate, renewed, mode=0o644)
        logger.info("the coordinator's certificate was issued anew")

    def _read(self) -> grpc.ServerCertificateConfiguration:
        identity = self._identity
        stamp = self._stamp_now()
        key, authority = read_private(identity.key), identity.authority.read_bytes()
        certificate = identity.certificate.read_bytes()
        if self._certificate:
            _require_whole(certificate, key, authority)
        self._stamp, self._certificate = stamp, certificate
        try:
            self._renewed(expiry_of(certificate))
        except ValueError:  # at the start gRPC refuses it, and `serve` says why
            self._renewed(0.0)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)

    def _stamp_now(self) -> tuple[object, ...]:
        identity = self._identity
        stats = [file.stat() for file in (identity.certificate, identity.key, identity.authority)]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)


def _require_whole(certificate: bytes, key: bytes, authority: bytes) -> None:
    """Refuse files that are half written: nobody else could call until they are whole."""
    if not _is_pair(certificate, key):
        raise ValueError("the certificate is not of the key beside it")
    authority_fingerprint(authority)


def _is_pair(certificate: bytes, key: bytes) -> bool:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(key, password=None)
    public = private.public_key()
    return key_bytes(public_key_of(certificate)) == key_bytes(public)  # type: ignore[arg-type] # EC, else unequal
