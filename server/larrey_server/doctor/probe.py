"""Measures what `larrey_server.doctor.checks` judges."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import sqlite3
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from larrey_protocol.certificates import is_issued_by
from larrey_protocol.checkup_probes import (
    engine_versions,
    file_system,
    flush_time,
    is_clock_kept,
    nearest,
)
from larrey_protocol.checkup_rules import is_whole_key
from larrey_protocol.errors import LarreyError
from larrey_server.journal import Journal
from larrey_server.seal import read_seal
from larrey_server.settings import CoordinatorSettings, split_address
from larrey_server.trail import read_trail, told, verify

__all__ = [
    "Identity",
    "Kept",
    "Machine",
    "Port",
    "State",
    "identity",
    "journal",
    "machine",
    "port",
    "spool",
    "state",
]

_DAY_S = 86400.0
_CONNECT_S = 5.0
_HASH_S = 15.0  # for the spool; what is left then is not hashed
_DATABASE = "coordinator.db"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104  asked, not bound


@dataclass(frozen=True, slots=True)
class Identity:
    """Certificates and keys.

    Attributes:
        days_left: until the server's certificate ends; negative once it has.
        authority_days_left: until the authority ends.
        is_issued: the authority signed the server's certificate.
        is_pair: the server's key belongs to its certificate.
        open_keys: settings of private keys that others may read.
        is_signing_key_whole: it can be read and is an Ed25519 key.
        operators_ended: operators whose certificate has ended.
        can_renew: the authority's key is here.
    """

    days_left: float
    authority_days_left: float
    is_issued: bool
    is_pair: bool
    open_keys: tuple[str, ...]
    is_signing_key_whole: bool
    operators_ended: tuple[str, ...]
    can_renew: bool


@dataclass(frozen=True, slots=True)
class Port:
    """The port that hospitals reach.

    Attributes:
        address: as ``listen.address`` has it.
        is_loopback: no other machine can reach it.
        is_open: something listens there.
        is_ours: it shows a certificate of the configured authority.
    """

    address: str
    is_loopback: bool
    is_open: bool
    is_ours: bool


@dataclass(frozen=True, slots=True)
class State:
    """The state folder.

    Attributes:
        path: as ``coordinator.state`` has it.
        trouble: what the system says to a write; "" if it succeeds.
        is_readonly: its volume is mounted read-only.
        free_bytes: on its volume.
        kind: of its file system.
        flush_s: the median of five flushes; None where none succeeded.
        open_places: folder and databases that others may read.
        is_held: a process has the journal open for writing.
    """

    path: str
    trouble: str = ""
    is_readonly: bool = False
    free_bytes: int = 64 << 30
    kind: str = "ext4"
    flush_s: float | None = 0.001
    open_places: tuple[str, ...] = ()
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """Whether what is kept is whole: code of what is wrong, "" for nothing; None: nothing kept."""

    code: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Clock and installed engine."""

    is_clock_kept: bool | None
    engine: str
    engine_wanted: str


def identity(settings: CoordinatorSettings, now: float) -> Identity:
    """Measure the certificates; ValueError where one is none."""
    ours = settings.identity
    certificate = x509.load_pem_x509_certificate(ours.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(ours.authority.read_bytes())
    keys = {"identity.key": ours.key, "identity.signing_key": ours.signing_key}
    if ours.authority_key is not None:
        keys["identity.authority_key"] = ours.authority_key
    return Identity(
        days_left=(certificate.not_valid_after_utc.timestamp() - now) / _DAY_S,
        authority_days_left=(authority.not_valid_after_utc.timestamp() - now) / _DAY_S,
        is_issued=is_issued_by(ours.certificate.read_bytes(), ours.authority.read_bytes()),
        is_pair=_is_pair(certificate, ours.key),
        open_keys=tuple(name for name, path in keys.items() if path.stat().st_mode & 0o037),
        is_signing_key_whole=is_whole_key(ours.signing_key),
        operators_ended=tuple(
            one.name for one in settings.operators if _end(one.certificate) < now
        ),
        can_renew=ours.authority_key is not None,
    )


def port(settings: CoordinatorSettings) -> Port:
    """Ask the port that hospitals reach for a handshake, as a site without a certificate."""
    host, number = split_address(settings.listen.address)
    asked = _ANY.get(host, host)
    context = ssl.create_default_context(cafile=str(settings.identity.authority))
    context.check_hostname = False  # sites know another name; the authority is what counts
    context.set_alpn_protocols(["h2"])
    is_open = is_ours = False
    with suppress(OSError):
        plain = socket.create_connection((asked, number), _CONNECT_S)
        is_open = True
        with plain, context.wrap_socket(plain, server_hostname=asked):
            is_ours = True
    is_loopback = host in {"localhost", "::1"} or host.startswith("127.")
    return Port(settings.listen.address, is_loopback, is_open, is_ours)


def state(folder: Path) -> State:
    """Measure; a folder that is not there yet is judged by the nearest one above."""
    there = nearest(folder)
    facts = os.statvfs(there)
    trouble, flush = flush_time(there)
    return State(
        path=str(folder),
        trouble=trouble,
        is_readonly=bool(facts.f_flag & os.ST_RDONLY),
        free_bytes=facts.f_bavail * facts.f_frsize,
        kind=file_system(there.resolve()),
        flush_s=flush,
        open_places=tuple(_open_places(folder)),
        is_held=_is_held(folder / f"{_DATABASE}.lock"),
    )


def journal(folder: Path) -> Kept:
    """Verify the journal's bytes, its audit chain, and every signed head that it must meet."""
    path = folder / _DATABASE
    if not path.is_file():
        return Kept(None)
    try:
        seal = read_seal(folder)
        opened = Journal.look(path)
        try:
            verify(read_trail(told(opened, seal=seal)))
        finally:
            opened.close()
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as connection:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        connection.close()
    except LarreyError as error:
        return Kept(error.code)
    except sqlite3.Error:
        return Kept("state-damaged")
    return Kept("" if said == "ok" else "state-damaged")


def spool(folder: Path, limit_s: float = _HASH_S) -> Kept:
    """Hash the blobs, the newest first, for as long as the limit allows; uploads are left out."""
    if not folder.is_dir():
        return Kept(None)
    ends = time.monotonic() + limit_s
    blobs = [path for path in folder.iterdir() if len(path.name) == 64 and path.is_file()]
    for path in sorted(blobs, key=lambda one: one.stat().st_mtime, reverse=True):
        if time.monotonic() > ends:
            break
        with suppress(FileNotFoundError), path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                return Kept(f"sha256:{path.name[:12]}")
    return Kept("")


def machine() -> Machine:
    """Measure."""
    return Machine(is_clock_kept(), *engine_versions())


def _is_pair(certificate: x509.Certificate, key: Path) -> bool:
    try:
        found = load_pem_private_key(key.read_bytes(), None)
    except (ValueError, TypeError):
        return False
    return found.public_key() == certificate.public_key()


def _end(path: Path) -> float:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.not_valid_after_utc.timestamp()


def _open_places(folder: Path) -> Iterator[str]:
    if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        yield str(folder)
    for file in sorted(folder.glob("*.db")):
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            yield file.name


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
