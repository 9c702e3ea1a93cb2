"""`larrey init`: the folders of a new consortium, as their owners will have them.

``coordinator/`` runs `larrey serve`; ``operator/`` speaks to it; ``consortium/`` holds the root of
trust and belongs on another machine. Folders are 0700, secrets 0600, the rest at most 0644; nothing
is overwritten.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from larrey_protocol.certificates import (
    Credential,
    authority_fingerprint,
    issue_client,
    issue_server,
    make_authority,
)
from larrey_protocol.errors import FileError
from larrey_protocol.keys import SigningKey, fingerprint, write_private
from larrey_server.membership import OPERATOR_DAYS
from larrey_server.settings import load_coordinator, load_operator, split_address

__all__ = ["Made", "create"]

_COORDINATOR = """\
# The coordinator. Start it: larrey serve --config coordinator.toml
# Relative paths count from this file's folder. An unknown key is an error.

[coordinator]
state = "state"  # journal and models: back it up; one writer only

[listen]
address = {listen}  # gRPC with mutual TLS; the one port that hospitals reach
metrics = "127.0.0.1:9464"  # HTTP: /metrics, /livez, /readyz; "" switches it off

[identity]
certificate = "server.crt"  # issued anew here before it ends
key = "server.key"
authority = "ca.crt"  # authenticates transport only
authority_key = "ca.key"
signing_key = "signing.ed25519"

[consortium]  # the root of trust; its private half is not here: {fingerprint}
key = {consortium}

[[operators]]
name = "operator"
certificate = "operator.crt"

# Hospitals join by invitation: larrey invite SITE --operator operator.toml > site.invite
"""
_OPERATOR = """\
# The consortium's connection to its coordinator: larrey sites list --operator operator.toml

[coordinator]
address = {address}
authority = "ca.crt"

[identity]
certificate = "operator.crt"  # lasts 365 days: larrey operator renew
key = "operator.key"

[consortium]
key = {consortium}
# Only who signs rosters needs the private half; it belongs on another, offline machine.
signing_key = "../consortium/consortium.ed25519"
"""
_OFFLINE = """\
This folder holds the consortium's private key: the root of trust of every hospital that joins.
It belongs on another machine that is offline, with a copy in a safe. Move it there now.
Fingerprint, to be read out by phone: {fingerprint}
"""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, and what people compare."""

    coordinator: Path
    operator: Path
    consortium: Path
    consortium_fingerprint: str
    authority_fingerprint: str
    has_passphrase: bool


def create(
    folder: Path,
    address: str,
    hosts: Sequence[str],
    *,
    now: dt.datetime,
    passphrase: bytes | None,
) -> Made:
    """Write the folders of a new consortium.

    Args:
        folder: new or empty.
        address: ``host:port`` at which hospitals reach the coordinator.
        hosts: further names and addresses for the server's certificate.
        now: from when certificates count.
        passphrase: of the consortium's key; None leaves it in the clear.

    Raises:
        FileError: ``file-exists``. UsageError: ``bad-address``.
    """
    host, port = split_address(address)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError("file-exists", f"{folder} is not empty", "Name a new folder.")
    authority = make_authority("larrey authority", now=now)
    consortium, signer = SigningKey.generate(), SigningKey.generate()
    is_local = _is_loopback(host)
    names = [host, *hosts, *(["localhost", "127.0.0.1"] if is_local else [])]
    server = issue_server(authority, list(dict.fromkeys(names)), now=now)
    operator = issue_client(authority, "operator", now=now, days=OPERATOR_DAYS)
    facts = {
        "address": _text(address),
        "listen": _text(f"{'127.0.0.1' if is_local else '0.0.0.0'}:{port}"),  # noqa: S104 - asked for
        "consortium": _text(consortium.public),
        "fingerprint": fingerprint(consortium.public),
    }
    home = _folder(folder, "coordinator")
    _write(home, "ca", authority)
    _write(home, "server", server)
    _put(home / "operator.crt", operator.certificate)
    signer.save(home / "signing.ed25519")
    _put(home / "coordinator.toml", _COORDINATOR.format(**facts).encode())
    desk = _folder(folder, "operator")
    _write(desk, "operator", operator)
    _put(desk / "ca.crt", authority.certificate)
    _put(desk / "operator.toml", _OPERATOR.format(**facts).encode())
    root = _folder(folder, "consortium")
    consortium.save(root / "consortium.ed25519", passphrase)
    _put(root / "README.txt", _OFFLINE.format(**facts).encode())
    load_coordinator(home / "coordinator.toml")
    load_operator(desk / "operator.toml")
    return Made(
        home / "coordinator.toml",
        desk / "operator.toml",
        root,
        fingerprint(consortium.public),
        authority_fingerprint(authority.certificate),
        passphrase is not None,
    )


def _folder(folder: Path, name: str) -> Path:
    home = folder / name
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    home.mkdir(mode=0o700)
    return home


def _put(path: Path, data: bytes) -> None:
    """Write a file that is no secret and that nobody else may change, whatever the umask."""
    path.touch(mode=0o644)
    path.write_bytes(data)


def _write(home: Path, name: str, credential: Credential) -> None:
    _put(home / f"{name}.crt", credential.certificate)
    write_private(home / f"{name}.key", credential.key)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
