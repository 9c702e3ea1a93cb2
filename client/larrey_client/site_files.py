"""What `larrey-site join` writes for a hospital: a commented ``site.toml`` and a systemd unit.

The unit in ``deploy/systemd`` is the same text with the paths of a package; a test holds them
together. It gives up every right that a node can live without.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from larrey_client.settings import load_settings
from larrey_protocol.certificates import replace_file
from larrey_protocol.enrolment import Address

__all__ = [
    "PACKAGED",
    "Service",
    "add_membership",
    "dataset_name",
    "site_toml",
    "unit",
    "write_site_toml",
]

_SITE = """\
# This hospital's Larrey node. Start it: larrey-site run --config {where}
# Relative paths count from this file's folder. An unknown key is an error.

[site]
name = {site}
state = "state"  # privacy ledger and audit trail: one writer; never put an old copy back
metrics = "127.0.0.1:9465"  # Prometheus; "" switches it off

[coordinator]  # where this node asks for work, outside the hospital
address = {address}
authority = "identity/ca.crt"

[identity]  # made here; the keys never leave. Certificates last 90 days and renew themselves
certificate = "identity/site.crt"
key = "identity/site.key"
signing_key = "identity/signing.ed25519"

[consortium]  # the root of trust, compared by phone: {fingerprint}
key = {consortium}

{datasets}
# Who decides here. Each person makes a key of their own: larrey-site person new NAME
# [[people]]
# name = "…"
# role = "dpo"  # it, dpo or auditor
# key = "ed25519:…"

# [policy]  # what this hospital allows, whatever a study asks; these are the defaults
# approvals = ["dpo"]  # who must sign: ["it", "dpo"] asks for both
# min_noise_multiplier = 0.5
# max_epsilon_per_study = 3.0
# min_units = 20
"""
_DATASET = """\
[[datasets]]
name = {name}
path = {path}
# unit = "patient_id"  # column that says whose row it is
epsilon = 8.0  # for all studies ever, per patient at this site
delta = 1e-5
"""
_NO_DATASET = """\
# Nothing can run before a dataset is declared here.
# [[datasets]]
# name = "heart"
# path = "heart.parquet"
# unit = "patient_id"  # column that says whose row it is
# epsilon = 8.0  # for all studies ever, per patient at this site
# delta = 1e-5
"""
_MEMBERSHIP = """
[[memberships]]  # one more coordinator: same ledger, same people, same signing key
name = {name}
coordinator.address = {address}
coordinator.authority = "identity/{folder}/ca.crt"
identity.certificate = "identity/{folder}/site.crt"
identity.key = "identity/{folder}/site.key"
consortium.key = {consortium}  # compared by phone: {fingerprint}
"""
_UNIT = """\
# A hospital's Larrey node, {installed}.
#   {config}   settings; keys in {identity}, mode 0600
#   {state}         privacy ledger and audit trail: one writer, and never an old copy put back
{reach}
# A witness needs a drop-in too: ReadWritePaths= for the folder of its file, IPAddressAllow= for a
# log collector. And a GPU:
#   PrivateDevices=no, DevicePolicy=closed and DeviceAllow= for its device files.
[Unit]
Description=Larrey site (hospital node)
Wants=network-online.target
After=network-online.target
# It is started again for ever: a node that gave up over a weekend's outage helps nobody.
StartLimitIntervalSec=0

[Service]
User={user}
Group={group}
ExecStart={program} run --config {config}
Restart=on-failure
RestartSec=1
TimeoutStopSec=120
# Where memory runs out the kernel ends the trainer; the node goes on and starts another.
OOMPolicy=continue
LimitCORE=0
StateDirectory=larrey
StateDirectoryMode=0700
RuntimeDirectory=larrey
RuntimeDirectoryMode=0700
Environment=HOME=/run/larrey FLWR_HOME=/run/larrey/flwr
Environment=FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
Environment=FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 PROMETHEUS_DISABLE_CREATED_SERIES=true

UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
# The node renews its own certificate; it cannot change its settings.
ReadWritePaths={writable}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
IPAddressDeny=any
IPAddressAllow={allowed}
# The trainer gives up the network by entering an empty namespace; no other kind is allowed.
RestrictNamespaces=user net
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
# No MemoryDenyWriteExecute: torch generates its convolution kernels at run time and fails under it.
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
# Landlock, by which trainer and extraction close the files of this account to themselves. By name:
# older systemd does not know the group @sandbox, and would refuse these calls.
SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self
# @resources stays: torch sets the affinity of its threads.
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
_NOBODY = """\
# It may reach this machine only, until a drop-in names the coordinator or the proxy
# (systemctl edit larrey-site):
#   [Service]
#   IPAddressAllow=192.0.2.10
# and so must a database, where a dataset comes from one."""
_COORDINATOR = """\
# It may reach this machine and the coordinator only, at the addresses it has today.
# Where they change, a proxy stands between or a dataset comes from a database:
# systemctl edit larrey-site, IPAddressAllow=."""


@dataclass(frozen=True, slots=True)
class Service:
    """What differs between one machine's unit and another's."""

    program: str
    config: Path
    identity: Path
    state: Path
    user: str = "larrey"
    group: str = "larrey"
    addresses: tuple[str, ...] = ()  # of the coordinator
    installed: str = "written by larrey-site join"


PACKAGED = Service(
    program="/opt/larrey/bin/larrey-site",
    config=Path("/etc/larrey/site.toml"),
    identity=Path("/etc/larrey/identity"),
    state=Path("/var/lib/larrey"),
    installed="installed in /opt/larrey, for the system user `larrey`",
)


def unit(service: Service) -> str:
    """Return the text of the systemd unit."""
    return _UNIT.format(
        installed=service.installed,
        program=_word(service.program),
        config=_word(service.config),
        identity=service.identity,
        state=service.state,
        writable=f"{_word(f'-{service.identity}')} {_word(f'-{service.state}')}",
        user=service.user,
        group=service.group,
        allowed=" ".join(["localhost", *service.addresses]),
        reach=_COORDINATOR if service.addresses else _NOBODY,
    )


def site_toml(
    where: Path,
    site: str,
    address: Address,
    consortium: tuple[str, str],
    data: Sequence[Path],
) -> str:
    """Return the text of ``site.toml``; ``consortium`` is its key and that key's fingerprint."""
    folder = where.parent
    datasets = [
        _DATASET.format(name=_text(dataset_name(path)), path=_text(str(_near(path, folder))))
        for path in data
    ]
    key, fingerprint = consortium
    return _SITE.format(
        where=where,
        site=_text(site),
        address=_text(address),
        consortium=_text(key),
        fingerprint=fingerprint,
        datasets="\n".join(datasets) or _NO_DATASET,
    )


def write_site_toml(where: Path, text: str) -> None:
    """Write a settings file that was read back and found good.

    Raises:
        FileError: as `load_settings`; nothing was written.
    """
    draft = where.with_name(f".{where.name}.draft")
    replace_file(draft, text.encode())
    try:
        load_settings(draft)
        os.link(draft, where)  # fails where there is one: it is never overwritten
    finally:
        draft.unlink(missing_ok=True)


def add_membership(where: Path, name: str, address: Address, consortium: tuple[str, str]) -> None:
    """Add one more membership at the end of a settings file, which is else left as it is.

    Raises:
        FileError: as `load_settings`; nothing was changed.
    """
    key, fingerprint = consortium
    added = _MEMBERSHIP.format(
        name=_text(name),
        folder=name,
        address=_text(address),
        consortium=_text(key),
        fingerprint=fingerprint,
    )
    text = where.read_text(encoding="utf-8").rstrip("\n") + "\n" + added
    draft = where.with_name(f".{where.name}.draft")
    replace_file(draft, text.encode(), mode=where.stat().st_mode & 0o777)
    try:
        load_settings(draft)
        draft.replace(where)
    finally:
        draft.unlink(missing_ok=True)


def dataset_name(path: Path) -> str:
    """Return a dataset's name made from its file's name."""
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")
    return (name if re.match(r"[a-z].", name) else f"data-{name}").strip("-")[:40]


def _near(path: Path, folder: Path) -> Path:
    """Return a path relative to the settings' folder if it lies there, else absolute."""
    resolved, home = path.resolve(), folder.resolve()
    return resolved.relative_to(home) if resolved.is_relative_to(home) else resolved


def _word(value: object) -> str:
    """Return one word as systemd reads it."""
    text = str(value).replace("%", "%%")
    return json.dumps(text, ensure_ascii=False) if re.search(r"[\s\"'\\]", text) else text


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
