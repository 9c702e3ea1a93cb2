"""Write the folders of a coordinator, an operator and some sites, as their owners would have them.

Every key is made here and now and authenticates loopback only. A site's folder holds its own rows,
keys and policy and nothing of anybody else's. Nothing is started; see `processes`.
"""

from __future__ import annotations

import datetime as dt
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from larrey_protocol.certificates import Credential, issue_client, issue_server, make_authority
from larrey_protocol.keys import SigningKey, write_private

__all__ = ["SitePlan", "Workspace", "create_workspace", "free_port"]


@dataclass(frozen=True)
class SitePlan:
    """One site to be: its data file is copied into its folder; budget and policy are its own."""

    name: str
    data: Path
    dataset: str
    epsilon: float = 8.0
    delta: float = 1e-5
    unit: str = ""  # column that says whose row it is; pinned where the site names it
    policy: Mapping[str, Any] = field(default_factory=dict)  # Any: TOML values


@dataclass(frozen=True)
class Workspace:
    """Where everything lies."""

    folder: Path
    address: str
    sites: tuple[str, ...]

    @property
    def coordinator(self) -> Path:
        """Return the coordinator's settings file."""
        return self.folder / "coordinator" / "coordinator.toml"

    @property
    def operator(self) -> Path:
        """Return the consortium operator's settings file."""
        return self.folder / "consortium" / "operator.toml"

    def site(self, name: str) -> Path:
        """Return a site's settings file."""
        return self.folder / "sites" / name / "site.toml"


def create_workspace(
    folder: Path, sites: Sequence[SitePlan], *, metrics: bool = False
) -> Workspace:
    """Return a new workspace in ``folder``, which must not exist yet."""
    now = dt.datetime.now(dt.UTC)
    address, authority = f"localhost:{free_port()}", make_authority("larrey-sandbox", now=now)
    consortium = SigningKey.generate()
    rows = [_write_site(folder, plan, address, authority, consortium, now) for plan in sites]
    _write_operator(folder / "consortium", address, authority, consortium, now)
    server = issue_server(authority, ["localhost", "127.0.0.1"], now=now)
    home = _home(folder / "coordinator", authority, server)
    SigningKey.generate().save(home / "signing.ed25519")
    document = {
        "coordinator": {"state": "state"},
        "listen": {
            "address": "127.0.0.1:" + address.partition(":")[2],
            "metrics": f"127.0.0.1:{free_port()}" if metrics else "",
        },
        "identity": {**_identity("authority"), "signing_key": "signing.ed25519"},
        "consortium": {"key": consortium.public},
        "sites": rows,
        "operators": [{"name": "operator", "certificate": "../consortium/tls.crt"}],
    }
    (home / "coordinator.toml").write_text(tomli_w.dumps(document))
    return Workspace(folder, address, tuple(plan.name for plan in sites))


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_site(
    folder: Path,
    plan: SitePlan,
    address: str,
    authority: Credential,
    consortium: SigningKey,
    now: dt.datetime,
) -> dict[str, str]:
    """Write one site's folder and return its row in the coordinator's register."""
    home = _home(
        folder / "sites" / plan.name, authority, issue_client(authority, plan.name, now=now)
    )
    key, data = SigningKey.generate(), home / f"{plan.dataset}{plan.data.suffix}"
    key.save(home / "signing.ed25519")
    shutil.copyfile(plan.data, data)
    document = {
        "site": {"name": plan.name, "state": "state", "metrics": ""},
        "coordinator": {"address": address, "authority": "ca.crt"},
        "identity": {**_identity(), "signing_key": "signing.ed25519"},
        "consortium": {"key": consortium.public},
        "trainer": {"threads": 1},
        "datasets": [
            {
                "name": plan.dataset,
                "path": data.name,
                "epsilon": plan.epsilon,
                "delta": plan.delta,
                **({"unit": plan.unit} if plan.unit else {}),
            }
        ],
        "policy": dict(plan.policy),
    }
    (home / "site.toml").write_text(tomli_w.dumps(document))
    certificate = f"../sites/{plan.name}/tls.crt"
    return {"name": plan.name, "certificate": certificate, "key": key.public}


def _write_operator(
    home: Path, address: str, authority: Credential, consortium: SigningKey, now: dt.datetime
) -> None:
    _home(home, authority, issue_client(authority, "operator", now=now))
    consortium.save(home / "consortium.ed25519")
    document = {
        "coordinator": {"address": address, "authority": "ca.crt"},
        "identity": _identity(),
        "consortium": {"signing_key": "consortium.ed25519"},
    }
    (home / "operator.toml").write_text(tomli_w.dumps(document))


def _home(home: Path, authority: Credential, credential: Credential) -> Path:
    home.mkdir(parents=True, mode=0o700)
    (home / "ca.crt").write_bytes(authority.certificate)
    (home / "tls.crt").write_bytes(credential.certificate)
    write_private(home / "tls.key", credential.key)
    return home


def _identity(*more: str) -> dict[str, str]:
    files = {"certificate": "tls.crt", "key": "tls.key"}
    return files | ({"authority": "ca.crt"} if "authority" in more else {})
