"""Measures what `larrey_client.preflight` judges. Reads; writes one empty file into the state.

Asks the coordinator for a TLS handshake and nothing more, so that nothing about this site leaves
beside its certificate. The rows are opened, never read.
"""

from __future__ import annotations

import ctypes
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from larrey_client.confinement.process import memory_limit
from larrey_client.extract.snapshots import folder_of
from larrey_client.local import ask
from larrey_client.preflight import Chain, Facts, Place
from larrey_client.settings import Member, SiteSettings
from larrey_client.sources_settings import FileSource, ImageSource, SqlSource
from larrey_protocol.certificates import is_issued_by
from larrey_protocol.errors import LarreyError

__all__ = ["cgroup_driver", "measure"]

_CONNECT_S = 5.0
_DEVICE_S = 60.0  # torch's import and a driver that wakes up
_DAY_S = 86400.0
_TRY_DEVICE = "import sys; from larrey_client.device import require_device as r; r(sys.argv[1])"


def measure(settings: SiteSettings, now: float) -> Facts:
    """Return the facts of this machine.

    Args:
        settings: of the site.
        now: seconds since 1970.

    Raises:
        FileError: a certificate file is missing or is none.
    """
    state, trainer = settings.site.state, settings.trainer
    return Facts(
        data=tuple(_data(settings)),
        state=_written("site.state", state),
        roots=tuple(_roots(settings)),
        writable=tuple(_writable()),
        memory_bytes=memory_limit(trainer.memory_mb),
        shared_bytes=_size("/dev/shm"),  # noqa: S108  measured, not used
        has_apps=bool(settings.policy.apps),
        device=trainer.device,
        device_answers=None if trainer.device == "cpu" else _answers(trainer.device),
        cgroup=_cgroup(),
        chains=tuple(_chain(member, now) for member in settings.members),
        clock_offset_s=_offset(state),
        is_clock_kept=_is_clock_kept(),
    )


def cgroup_driver(cgroup: str, *, is_container: bool) -> str:
    """Return who made this process's cgroup, from ``/proc/self/cgroup``.

    systemd names a container's group ``….scope``, the cgroupfs driver by its bare id. A container
    with a cgroup namespace of its own sees neither: "unknown". Version 1 loses no devices: "".
    """
    path = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::")), "")
    if not is_container or not path:
        return ""
    if path == "/":
        return "unknown"
    return "systemd" if ".scope" in path or ".slice" in path else "cgroupfs"


def _data(settings: SiteSettings) -> Iterator[Place]:
    for dataset in settings.datasets:
        name = f"datasets.{dataset.name}"
        match dataset.origin:
            case FileSource(path=path):
                key = "path" if dataset.path else "source.path"
                yield _read(f"{name}.{key}", path)
            case ImageSource(manifest=manifest, root=root):
                yield _read(f"{name}.source.manifest", manifest)
                yield _read(f"{name}.source.root", root)
            case SqlSource(dsn_file=dsn, query_file=query):
                yield _read(f"{name}.source.dsn_file", dsn)
                yield _read(f"{name}.source.query_file", query)
                yield _written("site.state", folder_of(settings.site.state))


def _roots(settings: SiteSettings) -> Iterator[Place]:
    for dataset in settings.datasets:
        if isinstance(dataset.origin, ImageSource):
            yield Place(f"datasets.{dataset.name}.source.root", str(dataset.origin.root))


def _read(setting: str, path: Path) -> Place:
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except OSError as error:
        return Place(setting, str(path), error.strerror or "cannot be read")
    return Place(setting, str(path))


def _written(setting: str, folder: Path) -> Place:
    """Try to write to a folder, or to the nearest one above that is there."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    trouble, is_readonly, free = "", False, 0
    try:
        facts = os.statvfs(there)
        is_readonly = bool(facts.f_flag & os.ST_RDONLY)
        free = facts.f_bavail * facts.f_frsize
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        trouble = error.strerror or "cannot be written"
    return Place(setting, str(folder), trouble, is_readonly, free)


def _writable() -> Iterator[str]:
    for folder in (Path("/var/lib/larrey"), Path("/var/lib"), Path.home(), Path.cwd()):
        if folder.is_dir() and not _written("", folder).trouble:
            yield str(folder / "larrey-site" if folder.name != "larrey" else folder)


def _size(folder: str) -> int | None:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return None
    return facts.f_blocks * facts.f_frsize


def _answers(device: str) -> bool:
    """Return whether a device answers, tried in a process of its own."""
    command = [sys.executable, "-P", "-c", _TRY_DEVICE, device]
    try:
        ended = subprocess.run(command, capture_output=True, check=False, timeout=_DEVICE_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def _cgroup() -> str:
    with suppress(OSError):
        text = Path("/proc/self/cgroup").read_text(encoding="utf-8")
        marks = ("/.dockerenv", "/run/.containerenv")
        is_container = any(Path(mark).exists() for mark in marks)
        is_container |= bool({"container", "KUBERNETES_SERVICE_HOST"} & os.environ.keys())
        return cgroup_driver(text, is_container=is_container)
    return ""


def _offset(state: Path) -> float | None:
    """Return what the running node measured; None where none runs."""
    with suppress(LarreyError, OSError):
        found = ask(state, "status").get("clock_offset_s")
        return None if found is None else float(found)
    return None


def _is_clock_kept() -> bool | None:
    """Return what adjtimex(2) says: 5 (TIME_ERROR) where nothing keeps the clock."""
    room = ctypes.create_string_buffer(512)  # struct timex; all zero asks and sets nothing
    try:
        said = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    except (OSError, AttributeError):
        return None
    return None if said < 0 else said != 5


def _chain(member: Member, now: float) -> Chain:
    from larrey_client.credentials import read_tls

    tls = read_tls(member)
    certificate = x509.load_pem_x509_certificate(tls.certificate)
    trouble, issuer = _handshake(member)
    ends = certificate.not_valid_after_utc.timestamp()
    begins = certificate.not_valid_before_utc.timestamp()
    return Chain(
        membership=member.name,
        address=member.coordinator.address,
        trouble=trouble,
        authority=_name(x509.load_pem_x509_certificate(tls.authority).subject),
        issuer=issuer,
        ours=_name(certificate.issuer),
        is_ours_issued=is_issued_by(tls.certificate, tls.authority),
        days_left=(ends - now) / _DAY_S,
        days_old=(now - begins) / _DAY_S,
    )


def _handshake(member: Member) -> tuple[str, str]:
    """Return the code of what is wrong and who issued the coordinator's certificate."""
    host, _, port = member.coordinator.address.rpartition(":")
    context = ssl.create_default_context(cafile=str(member.coordinator.authority))
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(member.identity.certificate, member.identity.key)
        with (
            socket.create_connection((host, int(port)), _CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as peer,
        ):
            issuer = _issuer(peer)
            # With TLS 1.3 a refusal of our certificate comes after the handshake; else the
            # server greets first (RFC 9113, 3.4).
            return "" if peer.recv(1) else "coordinator-closed", issuer
    except ssl.SSLCertVerificationError:
        return "coordinator-untrusted", _shown(host, int(port))
    except (ssl.SSLError, ConnectionResetError):
        return "coordinator-closed", _shown(host, int(port))
    except OSError:
        return "coordinator-unreachable", ""


def _shown(host: str, port: int) -> str:
    """Return who issued the certificate that is shown to anybody; nothing is believed of it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        suppress(OSError),
        socket.create_connection((host, port), _CONNECT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as peer,
    ):
        return _issuer(peer)
    return ""


def _issuer(peer: ssl.SSLSocket) -> str:
    shown = peer.getpeercert(binary_form=True)
    return _name(x509.load_der_x509_certificate(shown).issuer) if shown else ""


def _name(name: x509.Name) -> str:
    text = name.rfc4514_string()
    return "".join(c for c in text[:120] if c.isprintable())
