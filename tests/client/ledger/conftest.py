"""A site's state with a budget, a study that runs on it, and the people of the site."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from larrey_client.anchors import Anchored, make_anchor, open_anchor
from larrey_client.charter import charter_of
from larrey_client.officer import Officer
from larrey_client.settings import SiteSettings
from larrey_client.signing import policy_version, sign_policy
from larrey_client.store import SiteStore
from larrey_privacy.accounting import spend_cost
from larrey_privacy.filter import make_filter
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.decisions import PolicySignature
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person
from larrey_protocol.signed import sign
from tests.client.node.conftest import (
    agent,
    approve,
    peer,
    pki,
    settings,
    site_file,
    start,
    trainer,
)

__all__ = ["agent", "approve", "peer", "pki", "settings", "site_file", "start", "trainer"]

FILTER = make_filter(8.0, 1e-5)
ROUND = Mechanism(12.0, 1.0, 1, 14)
COST = spend_cost(ROUND, FILTER)
STUDY = "sha256:" + "5" * 64
UNIT = "patient (a value of patient_id)"


@dataclass
class State:
    """A state folder that a test may work in, copy away, put back and open again."""

    folder: Path
    key: SigningKey = field(default_factory=SigningKey.generate)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.store = SiteStore.open(self.folder, lambda: 12.0)

    def begin(self) -> None:
        """Register the dataset heart and hold ten rounds on it."""
        with self.store.transaction():
            self.store.ledger.register("heart", FILTER, UNIT)
            self.store.ledger.hold("heart", STUDY, ROUND.over(10), 10, spare_rounds=0)

    def work(self, rounds: int = 1) -> None:
        """Reserve and commit rounds, each with its audit record."""
        for _ in range(rounds):
            self.rounds += 1
            with self.store.transaction():
                self.store.ledger.reserve("heart", STUDY, self.rounds, "in", ROUND)
                self.store.audit("round-reserved", "alpha", study=STUDY, round=self.rounds)
            with self.store.transaction():
                self.store.ledger.commit("heart", STUDY, self.rounds, "in", "out")

    def anchor(self) -> Anchored:
        """Return where the state stands, signed by the site."""
        data = make_anchor(self.store, "alpha", self.key, 12.0).to_bytes()
        return open_anchor(data, self.key.public)

    def save(self) -> None:
        """Keep a copy of the whole folder, as a backup does."""
        self.reopen()
        shutil.copytree(self.folder, f"{self.folder}.old", dirs_exist_ok=True)

    def restore(self) -> None:
        """Put the copy back."""
        self.store.close()
        shutil.rmtree(self.folder)
        shutil.copytree(f"{self.folder}.old", self.folder)
        self.store = SiteStore.open(self.folder, lambda: 12.0)

    def reopen(self) -> None:
        """Stop and start, which writes all into the one file."""
        self.store.close()
        self.store = SiteStore.open(self.folder, lambda: 12.0)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "state")
    made.begin()
    yield made
    made.store.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "empty")
    yield made
    made.store.close()


@pytest.fixture
def make_state(tmp_path: Path) -> Iterator[Callable[[str], State]]:
    """Return a maker of further sites."""
    made: list[State] = []

    def make(name: str) -> State:
        made.append(State(tmp_path / name))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def make_officer(name: str = "d.officer", role: str = "dpo") -> Officer:
    key = SigningKey.generate()
    person = Person.model_validate({"name": name, "role": role, "key": key.public})
    return Officer("alpha", person, key)


def sign_charter(store: SiteStore, settings: SiteSettings, officer: Officer) -> None:
    """Put site.toml's policy in effect, as its officer would."""
    charter = charter_of(settings)
    word = PolicySignature(
        site=charter.site,
        version=policy_version(store, settings),
        policy=charter.digest,
        person=officer.person.name,
        at=1.0,
    )
    assert sign_policy(store, settings, sign(word, officer.key)) == ()


@pytest.fixture
def dpo() -> Officer:
    return make_officer()
