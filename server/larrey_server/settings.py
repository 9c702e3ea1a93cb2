"""What a coordinator and an operator are configured by: ``coordinator.toml``, ``operator.toml``.

Read once at start and passed down. Relative paths are relative to the file's own folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import Field, model_validator

from larrey_protocol.errors import FileError, UsageError
from larrey_protocol.keys import PublicKey
from larrey_protocol.people import PersonName
from larrey_protocol.study import SiteName
from larrey_protocol.tomlfile import Record, load_toml

__all__ = [
    "CoordinatorSettings",
    "OperatorSettings",
    "load_coordinator",
    "load_operator",
    "split_address",
]

_RecordT = TypeVar("_RecordT", bound=Record)


class CoordinatorSection(Record):
    """Where the coordinator keeps what must survive."""

    state: Path = Path("state")
    max_sites: int = Field(1000, ge=1, le=10_000)  # members and invitations; sizes thread pools
    access_log_months: int = Field(12, ge=6, le=36)  # who called what; the audit trail is kept


class Listen(Record):
    """Addresses ``host:port``; port 0 takes a free one."""

    address: str = "127.0.0.1:9443"  # gRPC with mutual TLS; the one port that hospitals reach
    metrics: str = "127.0.0.1:9464"  # HTTP: /metrics, /livez, /readyz; "" switches it off


class Identity(Record):
    """Who the coordinator is on the network and under which key it signs certificates."""

    certificate: Path
    key: Path
    authority: Path  # PEM; issues the certificates of sites and operators
    authority_key: Path | None = None  # its key; without it nobody can be invited from here
    signing_key: Path  # Ed25519 PEM


class Consortium(Record):
    """Who may propose studies."""

    key: PublicKey


class SiteEntry(Record):
    """A hospital: its transport certificate and the key that signs its answers and receipts."""

    name: SiteName
    certificate: Path
    key: PublicKey


class OperatorEntry(Record):
    """A person or program of the consortium that may use the control services."""

    name: SiteName
    certificate: Path


class CoordinatorSettings(Record):
    """The content of ``coordinator.toml``."""

    coordinator: CoordinatorSection = CoordinatorSection()
    listen: Listen = Listen()
    identity: Identity
    consortium: Consortium
    sites: tuple[SiteEntry, ...] = Field(default=(), max_length=1000)  # others join by invitation
    operators: tuple[OperatorEntry, ...] = Field(default=(), max_length=1000)

    @model_validator(mode="after")
    def _names_differ(self) -> CoordinatorSettings:
        for names in ([s.name for s in self.sites], [o.name for o in self.operators]):
            if len(set(names)) < len(names):
                raise ValueError("a name is listed twice")
        return self


class OperatorCoordinator(Record):
    """Which coordinator, and the authority that issued its certificate."""

    address: str
    authority: Path


class OperatorIdentity(Record):
    """The operator's transport credential."""

    certificate: Path
    key: Path


class OperatorConsortium(Record):
    """The consortium's key: the public half to verify by, the private one where it is held."""

    key: PublicKey | None = None
    signing_key: Path | None = None  # signs rosters; a person's key signs the rest if there is one


class OperatorPerson(Record):
    """The person who works with this file; their key signs permits, studies and orders."""

    name: PersonName  # as on the roster
    key: Path


class OperatorSettings(Record):
    """The content of ``operator.toml``."""

    coordinator: OperatorCoordinator
    identity: OperatorIdentity
    consortium: OperatorConsortium | None = None
    person: OperatorPerson | None = None


def load_coordinator(path: Path) -> CoordinatorSettings:
    """Return the settings in ``path`` with absolute paths.

    Raises:
        FileError: as `larrey_protocol.tomlfile.load_toml`, or ``missing-file`` for a file it names.
    """
    settings = _anchored(load_toml(path, CoordinatorSettings), path.resolve().parent)
    files = [settings.identity.certificate, settings.identity.key, settings.identity.authority]
    files += [settings.identity.signing_key]
    files += [key for key in [settings.identity.authority_key] if key is not None]
    files += [site.certificate for site in settings.sites]
    files += [operator.certificate for operator in settings.operators]
    _check_files(files, path)
    return settings


def load_operator(path: Path | None) -> OperatorSettings:
    """Return the settings in ``path``, else in the file that LARREY_OPERATOR names.

    Raises:
        UsageError: ``no-operator-file``.
        FileError: as `load_coordinator`.
    """
    named = path or (Path(text) if (text := os.environ.get("LARREY_OPERATOR")) else None)
    if named is None:
        raise UsageError(
            "no-operator-file",
            "expected an operator file, found neither --operator nor LARREY_OPERATOR",
            "Add --operator operator.toml, or name the file in LARREY_OPERATOR.",
        )
    settings = _anchored(load_toml(named, OperatorSettings), named.resolve().parent)
    identity = settings.identity
    _check_files([settings.coordinator.authority, identity.certificate, identity.key], named)
    return settings


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        UsageError: ``bad-address``.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            "bad-address", f"expected host:port, found '{text}'", "Write for example 127.0.0.1:9443"
        )
    return host, int(port)


def _anchored(record: _RecordT, folder: Path) -> _RecordT:
    """Return the record with every path in it made absolute against ``folder``."""
    changes: dict[str, object] = {}
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, Path):
            changes[name] = folder / value
        elif isinstance(value, Record):
            changes[name] = _anchored(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], Record):
            changes[name] = tuple(_anchored(item, folder) for item in value)
    return record.model_copy(update=changes)


def _check_files(files: list[Path], where: Path) -> None:
    for file in files:
        if not file.is_file():
            raise FileError(
                "missing-file", f"{where} names {file}, which is not there", "Correct the path."
            )
