"""Measures the way to each coordinator; a TLS handshake with each and nothing more."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from urllib.parse import urlsplit

from cryptography import x509

from larrey_client.settings import Member, SiteSettings

__all__ = ["Facts", "Way", "look"]

_CONNECT_S = 5.0
_MAX_HEAD = 1 << 14
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # in gRPC's order, lower case only
_EXEMPT = ("no_grpc_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Way:
    """The way of one membership.

    Attributes:
        name: of the membership.
        address: ``host:port`` of its coordinator.
        is_named: its host's name resolves, or a proxy does that.
        trouble: "", "unreachable", "untrusted" or "closed".
        issuer: who signed the certificate that is shown; "" where none was.
        authority: subject of ``coordinator.authority``.
        is_machine_trusted: this machine's own authorities vouch for what is shown.
        took_s: of the handshake.
    """

    name: str
    address: str
    is_named: bool
    trouble: str
    issuer: str
    authority: str
    is_machine_trusted: bool
    took_s: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured.

    Attributes:
        ways: one a membership.
        proxy: ``host:port`` that gRPC goes through; "" for none.
        is_proxy_there: something listens at it.
        unread: proxy variables in upper case alone, which gRPC does not read.
        differing: those whose two spellings differ.
        is_loopback_exempt: ``no_proxy`` names localhost and 127.0.0.1.
    """

    ways: tuple[Way, ...]
    proxy: str
    is_proxy_there: bool
    unread: tuple[str, ...]
    differing: tuple[str, ...]
    is_loopback_exempt: bool


def look(settings: SiteSettings) -> Facts:
    """Measure; a TLS handshake with each coordinator and nothing more."""
    found = {name: os.environ.get(name, "") for name in (*_PROXIES, *_EXEMPT)}
    upper = {name: os.environ.get(name.upper(), "") for name in found}
    proxy = next((_place(found[name]) for name in _PROXIES if found[name]), "")
    exempt = _exempt(found)
    members = settings.members
    with ThreadPool(len(members)) as pool:  # of daemon threads
        ways = pool.map(lambda member: _way(member, proxy, exempt), members)
    return Facts(
        ways=tuple(ways),
        proxy=proxy,
        is_proxy_there=not proxy or _listens(proxy),
        unread=tuple(name.upper() for name in found if upper[name] and not found[name]),
        differing=tuple(name for name in found if upper[name] and found[name] not in
                        ("", upper[name])),
        is_loopback_exempt={"localhost", "127.0.0.1"} <= set(exempt) or "*" in exempt,
    )  # fmt: skip


def _exempt(found: Mapping[str, str]) -> tuple[str, ...]:
    text = found["no_grpc_proxy"] or found["no_proxy"]
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _place(url: str) -> str:
    """Return host and port of a proxy; what stands before an @ is a secret."""
    with suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return f"{parts.hostname or ''}:{parts.port or 80}"
    return "?:0"


def _listens(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, ValueError):
        return False
    return True


def _way(member: Member, proxy: str, exempt: tuple[str, ...]) -> Way:
    address = member.coordinator.address
    host = address.rpartition(":")[0]
    is_exempt = host in _LOOPBACK or any(
        one in {"*", host} or host.endswith(f".{one.lstrip('.')}") for one in exempt
    )
    through = "" if is_exempt else proxy
    is_named = bool(through) or _resolves(host)
    trouble, issuer, took = ("unreachable", "", 0.0) if not is_named else _try(member, through)
    return Way(
        name=member.name,
        address=address,
        is_named=is_named,
        trouble=trouble,
        issuer=issuer,
        authority=_subject(member),
        is_machine_trusted=trouble == "untrusted" and _is_machine_trusted(address, through),
        took_s=took,
    )


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return True


def _connect(address: str, proxy: str) -> socket.socket:
    """Return a connection, by CONNECT where a proxy stands between; without its credentials."""
    host, _, port = (proxy or address).rpartition(":")
    plain = socket.create_connection((host, int(port)), _CONNECT_S)
    if proxy and not _is_let_through(plain, address):
        plain.close()
        raise ConnectionError
    return plain


def _is_let_through(plain: socket.socket, address: str) -> bool:
    head = b""
    with suppress(OSError):
        plain.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        while not head.endswith(b"\r\n\r\n") and len(head) < _MAX_HEAD:
            part = plain.recv(1)
            if not part:
                break
            head += part
    return head.split(b" ", 2)[1:2] == [b"200"]


def _try(member: Member, proxy: str) -> tuple[str, str, float]:
    """Return what is wrong, who issued the coordinator's certificate, and how long it took."""
    address = member.coordinator.address
    begun = time.monotonic()
    try:
        context = ssl.create_default_context(cafile=str(member.coordinator.authority))
        context.set_alpn_protocols(["h2"])
        with suppress(ssl.SSLError):  # a wrong pair is a check of its own
            context.load_cert_chain(member.identity.certificate, member.identity.key)
        with _connect(address, proxy) as plain, _tls(context, plain, address) as peer:
            took = time.monotonic() - begun
            # With TLS 1.3 a refusal of our certificate comes after the handshake; else the
            # server greets first (RFC 9113, 3.4).
            issuer = _issuer(peer)
            return "" if peer.recv(1) else "closed", issuer, took
    except ssl.SSLCertVerificationError:
        return "untrusted", _shown(address, proxy), 0.0
    except (ssl.SSLError, ConnectionResetError):
        return "closed", _shown(address, proxy), 0.0
    except OSError:
        return "unreachable", "", 0.0


def _tls(context: ssl.SSLContext, plain: socket.socket, address: str) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_hostname=address.rpartition(":")[0])


def _shown(address: str, proxy: str) -> str:
    """Return who issued the certificate that is shown to anybody; nothing is believed of it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        suppress(OSError),
        _connect(address, proxy) as plain,
        _tls(context, plain, address) as peer,
    ):
        return _issuer(peer)
    return ""


def _is_machine_trusted(address: str, proxy: str) -> bool:
    """Return whether the authorities that this machine's administrators installed vouch for it."""
    with (
        suppress(OSError),
        _connect(address, proxy) as plain,
        _tls(ssl.create_default_context(), plain, address),
    ):
        return True
    return False


def _subject(member: Member) -> str:
    try:
        pem = member.coordinator.authority.read_bytes()
        return _name(x509.load_pem_x509_certificate(pem).subject)
    except (OSError, ValueError):
        return ""


def _issuer(peer: ssl.SSLSocket) -> str:
    with suppress(ValueError):  # it hung up before it showed one
        shown = peer.getpeercert(binary_form=True)
        return _name(x509.load_der_x509_certificate(shown).issuer) if shown else ""
    return ""


def _name(name: x509.Name) -> str:
    return "".join(c for c in name.rfc4514_string()[:120] if c.isprintable())
