"""Write the folders of a coordinator, an operator and some sites, as their owners would have them.

Every key is made here and now and authenticates loopback only. A site's folder holds its own rows,
keys and policy and nothing of anybody else's. The keys of persons lie there too and have no
passphrase, which no hospital may copy: ``consortium/people/{ada,ben}.key`` (lead, member) and
``sites/<name>/people/{it,dpo}.key``. Nothing is started; see `processes`.
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
from larrey_protocol.people import Person, Role

__all__ = ["SitePlan", "Workspace", "create_workspace", "free_port"]

CONSORTIUM_PEOPLE: dict[str, Role] = {"ada": "lead", "ben": "member"}
SITE_PEOPLE: dict[str, Role] = {"it": "it", "dpo": "dpo"}
_LABORATORY = "Keys without a passphrase, for a federation on one machine. Never copy them.\n"


@dataclass(frozen=True)
class SitePlan:
    """One site to be: its data file is copied into its folder; budget and policy are its own."""

    name: str
    data: Path
    dataset: str
    epsilon: float = 8.0
    delta: float = 1e-5
    unit: str = ""  # column that says whose row it is; without it no study can be approved
    policy: Mapping[str, Any] = field(default_factory=dict)  # Any: TOML values


@dataclass(frozen=True)
class Workspace:
    """Where everything lies."""

    folder: Path
    address: str
    sites: tuple[str, ...]
    datasets: tuple[str, ...] = ()  # of the sites, in their order

    @property
    def coordinator(self) -> Path:
        """Return the coordinator's settings file."""
        return self.folder / "coordinator" / "coordinator.toml"

    @property
    def operator(self) -> Path:
        """Return the consortium operator's settings file."""
        return self.folder / "consortium" / "operator.toml"

    @property
    def releaser(self) -> Path:
        """Return the settings file of a second person of the consortium."""
        return self.folder / "consortium" / "ben.toml"

    @property
    def root_key(self) -> Path:
        """Return the consortium's own key."""
        return self.folder / "consortium" / "consortium.ed25519"

    def site(self, name: str) -> Path:
        """Return a site's settings file."""
        return self.folder / "sites" / name / "site.toml"

    def member_key(self, name: str) -> Path:
        """Return the key of a person of the consortium: ``ada`` (lead) or ``ben`` (member)."""
        return self.folder / "consortium" / "people" / f"{name}.key"

    def site_key(self, site: str, person: str) -> Path:
        """Return the key of a person at a site: ``it`` or ``dpo``."""
        return self.folder / "sites" / site / "people" / f"{person}.key"

    def people(self) -> tuple[Person, ...]:
        """Return the consortium's persons as its roster lists them."""
        return tuple(
            Person(name=name, role=role, key=SigningKey.load(self.member_key(name)).public)
            for name, role in CONSORTIUM_PEOPLE.items()
        )


def create_workspace(
    folder: Path, sites: Sequence[SitePlan], *, metrics: bool = False, host: str = ""
) -> Workspace:
    """Return a new workspace in ``folder``, which must not exist yet.

    The coordinator listens on loopback, or on the address ``host`` of a network made for a test.
    """
    now = dt.datetime.now(dt.UTC)
    address = f"{host or 'localhost'}:{free_port()}"
    authority = make_authority("larrey-sandbox", now=now)
    consortium = SigningKey.generate()
    rows = [_write_site(folder, plan, address, authority, consortium, now) for plan in sites]
    _write_operator(folder / "consortium", address, authority, consortium, now)
    hosts = [host] if host else ["localhost", "127.0.0.1"]
    server = issue_server(authority, hosts, now=now)
    home = _home(folder / "coordinator", authority, server)
    SigningKey.generate().save(home / "signing.ed25519")
    document = {
        "coordinator": {"state": "state"},
        "listen": {
            "address": (host or "127.0.0.1") + ":" + address.partition(":")[2],
            "metrics": f"127.0.0.1:{free_port()}" if metrics else "",
        },
        "identity": {**_identity("authority"), "signing_key": "signing.ed25519"},
        "consortium": {"key": consortium.public},
        "sites": rows,
        "operators": [{"name": "operator", "certificate": "../consortium/tls.crt"}],
    }
    (home / "coordinator.toml").write_text(tomli_w.dumps(document))
    names, datasets = (tuple(plan.name for plan in sites), tuple(plan.dataset for plan in sites))
    return Workspace(folder, address, names, datasets)


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
    people = _write_people(home, SITE_PEOPLE)
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
        "policy": {"completion_bucket_s": 0.0, **plan.policy},  # nobody to hide times from
        "people": [person.model_dump() for person in people],
    }
    (home / "site.toml").write_text(tomli_w.dumps(document))
    certificate = f"../sites/{plan.name}/tls.crt"
    return {"name": plan.name, "certificate": certificate, "key": key.public}


def _write_operator(
    home: Path, address: str, authority: Credential, consortium: SigningKey, now: dt.datetime
) -> None:
    _home(home, authority, issue_client(authority, "operator", now=now))
    consortium.save(home / "consortium.ed25519")
    _write_people(home, CONSORTIUM_PEOPLE)
    for file, person in (("operator.toml", "ada"), ("ben.toml", "ben")):
        document = {
            "coordinator": {"address": address, "authority": "ca.crt"},
            "identity": _identity(),
            "consortium": {"key": consortium.public, "signing_key": "consortium.ed25519"},
            "person": {"name": person, "key": f"people/{person}.key"},
        }
        (home / file).write_text(tomli_w.dumps(document))


def _write_people(home: Path, roles: Mapping[str, Role]) -> tuple[Person, ...]:
    """Write the keys of a house's persons, plainly marked, and return their public halves."""
    folder = home / "people"
    folder.mkdir(mode=0o700)
    (folder / "LABORATORY-KEYS.txt").write_text(_LABORATORY)
    people = []
    for name, role in roles.items():
        key = SigningKey.generate()
        key.save(folder / f"{name}.key")
        people.append(Person(name=name, role=role, key=key.public))
    return tuple(people)


def _home(home: Path, authority: Credential, credential: Credential) -> Path:
    home.mkdir(parents=True, mode=0o700)
    (home / "ca.crt").write_bytes(authority.certificate)
    (home / "tls.crt").write_bytes(credential.certificate)
    write_private(home / "tls.key", credential.key)
    return home


def _identity(*more: str) -> dict[str, str]:
    files = {"certificate": "tls.crt", "key": "tls.key"}
    return files | ({"authority": "ca.crt"} if "authority" in more else {})
