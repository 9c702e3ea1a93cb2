"""A hospital node in this process, beside an in-memory coordinator on loopback."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.run import open_node
from larrey_client.settings import SiteSettings, load_settings
from larrey_protocol.certificates import Credential, issue_client, issue_server, make_authority
from larrey_protocol.keys import SigningKey, write_private
from larrey_protocol.signed import Proposal, sign
from larrey_protocol.study import Study
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import People, make_permit, make_roster
from tests.client.node.trainers import SmallTrainer

Approve = Callable[[Agent, Study], Study]
SITE_TOML = """
[site]
name = "alpha"
metrics = ""
[coordinator]
address = "localhost:{port}"
authority = "ca.crt"
[identity]
certificate = "site.crt"
key = "site.key"
signing_key = "signing.pem"
[consortium]
key = "{consortium}"
[[datasets]]
name = "heart"
path = "heart.csv"
unit = "pid"
epsilon = 8.0
delta = 1e-5
[[people]]
name = "ines"
role = "it"
key = "{it}"
[[people]]
name = "dora"
role = "dpo"
key = "{dpo}"
[policy]
approvals = ["it", "dpo"]
min_noise_multiplier = 1.0
max_epsilon_per_study = 3.0
completion_bucket_s = 0.0
"""


@dataclass(frozen=True)
class Pki:
    authority: Credential
    server: Credential
    site: Credential
    consortium: SigningKey = field(default_factory=SigningKey.generate)
    signing: SigningKey = field(default_factory=SigningKey.generate)
    people: People = field(default_factory=People)


@pytest.fixture(scope="session")
def pki() -> Pki:
    now = dt.datetime.now(dt.UTC)
    authority = make_authority("test authority", now=now)
    server = issue_server(authority, ["localhost", "127.0.0.1"], now=now)
    return Pki(authority, server, issue_client(authority, "alpha", now=now))


@pytest.fixture
def peer(pki: Pki) -> Iterator[Peer]:
    coordinator = Peer().start(pki.server, pki.authority.certificate)
    yield coordinator
    coordinator.stop()


@pytest.fixture
def site_file(pki: Pki, peer: Peer, tmp_path: Path) -> Path:
    """Return a complete site folder's site.toml."""
    (tmp_path / "ca.crt").write_bytes(pki.authority.certificate)
    (tmp_path / "site.crt").write_bytes(pki.site.certificate)
    write_private(tmp_path / "site.key", pki.site.key)
    pki.signing.save(tmp_path / "signing.pem")
    path = tmp_path / "site.toml"
    people = pki.people
    path.write_text(
        SITE_TOML.format(
            port=peer.port,
            consortium=pki.consortium.public,
            it=people.it.public,
            dpo=people.dpo.public,
        )
    )
    return path


@pytest.fixture
def settings(site_file: Path, pki: Pki) -> SiteSettings:
    """Return settings whose charter both persons signed."""
    return pki.people.sign_charter(load_settings(site_file))


@pytest.fixture
def trainer() -> SmallTrainer:
    return SmallTrainer()


@pytest.fixture
def start(settings: SiteSettings, trainer: SmallTrainer) -> Iterator[Callable[[], Agent]]:
    """Return what starts the node; the node before it is stopped first."""
    stacks: list[ExitStack] = []

    def make() -> Agent:
        for stack in stacks:
            stack.close()
        stacks[:] = [ExitStack()]
        return stacks[0].enter_context(open_node(settings, lambda _: trainer, threading.Event()))

    yield make
    for stack in stacks:
        stack.close()


@pytest.fixture
def agent(start: Callable[[], Agent]) -> Agent:
    return start()


@pytest.fixture
def approve(pki: Pki, peer: Peer) -> Approve:
    """Return what proposes a study, has both persons approve it, and launches it."""

    def act(agent: Agent, study: Study) -> Study:
        propose(peer, pki, agent, study)
        for key in (pki.people.it, pki.people.dpo):
            pki.people.approve(agent, study, key)
        agent.desk.send_decisions()
        pki.people.launch(agent, study, pki.consortium)
        return study

    return act


@pytest.fixture
def lawful(pki: Pki, peer: Peer) -> Callable[[Agent, Study], Study]:
    """Return what proposes a study under a permit that the officer has countersigned."""

    def act(agent: Agent, study: Study) -> Study:
        return propose(peer, pki, agent, study)

    return act


def propose(peer: Peer, pki: Pki, agent: Agent, study: Study) -> Study:
    """Have the roster, the permit and the study arrive; countersign the permit."""
    if not peer.rosters:
        peer.rosters.append(sign(make_roster(pki.signing.public), pki.consortium).to_bytes())
        peer.permits.append(sign(make_permit(), pki.consortium).to_bytes())
    peer.propose(sign(Proposal(study=study, proposed_at=1.0), pki.consortium).to_bytes())
    wait_until(lambda: knows(agent, study))
    pki.people.countersign(agent, study.file.study.permit)
    pki.people.register(agent)
    return study


def knows(agent: Agent, study: Study) -> bool:
    with agent.node.store.reading() as records:
        return records.has_proposal(study.digest)
