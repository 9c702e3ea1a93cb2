"""What every part of a running node shares: settings, state, connection, trainer, keys, clocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from larrey_client.cases import Cases
from larrey_client.confinement.barriers import Isolation
from larrey_client.data.reading import PLAIN, Reading
from larrey_client.epsilons import EpsilonTable
from larrey_client.exchange import Exchange
from larrey_client.metrics import SiteMetrics
from larrey_client.settings import Member, SiteSettings
from larrey_client.store import SiteStore
from larrey_client.trainer_link import Loaded, PersonalTask, TrainTask
from larrey_client.turn import Turn
from larrey_client.watch import Anchors
from larrey_protocol.keys import SigningKey
from larrey_protocol.study import Study

__all__ = ["Node", "Trainer", "delays"]


class Trainer(Protocol):
    """The process that trains; `larrey_client.trainer_link.TrainerLink` is the real one."""

    def load(
        self,
        study: Study,
        *,
        site: str,
        data: Path,
        app: str | None = None,
        reading: Reading = PLAIN,
    ) -> Loaded:
        """Check the data, keep them ready, return what was found."""

    def scan(self, source: Path, unit: str, salt: bytes) -> bytes:
        """Return the sorted hashes of the patients in a source."""

    def train(self, task: TrainTask, model: int, *, timeout_s: float) -> int:
        """Return a sealed memory file with the update."""

    def train_keeping(
        self, task: TrainTask, model: int, state: int | None, *, timeout_s: float
    ) -> tuple[int, int]:
        """Return the update, and what the site keeps once it was applied, as sealed files."""

    def personalise(
        self, task: PersonalTask, final: int, *, timeout_s: float
    ) -> tuple[int, dict[str, float]]:
        """Return a model of the site's own as a sealed file, and its scores."""

    def interrupt(self, study: str = "") -> None:
        """End the process at once if it holds this study, whatever it does; bar its training."""

    def admit(self, study: str) -> None:
        """Let a study train again."""

    def stop(self) -> None:
        """End the process at once."""

    @property
    def isolation(self) -> Isolation | None:
        """Return which barriers stand around the process, None until it said so."""


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of one running node, as one of its memberships sees them.

    Settings, trainer and its turn, anchors, key, figures, metrics, clocks and the files below the
    store are the same in all memberships; store, cases and exchange are each one's own.

    Attributes:
        membership: whose coordinator the exchange calls, and whose studies the store shows.
        cases: what the gate is told, collected from what was verified.
        anchors: what witnesses know of ledger and trail; each durable commit is published.
        trainer_turn: held by whoever uses the trainer; who waited longest is next.
        now: seconds since 1970, for records.
        monotonic: seconds, for deadlines.
        stopping: set once; everything that waits waits on it.
        scanned: which version of a dataset's rows was compared with the families.
    """

    settings: SiteSettings
    store: SiteStore
    anchors: Anchors
    cases: Cases
    exchange: Exchange
    trainer: Trainer
    trainer_turn: Turn
    key: SigningKey
    epsilons: EpsilonTable
    metrics: SiteMetrics
    now: Callable[[], float]
    monotonic: Callable[[], float]
    stopping: threading.Event
    membership: Member
    scanned: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def opens_at(self) -> float:
        """Return when training may begin next, in seconds since 1970; 0.0 for now."""
        return self.settings.trainer.hours.opens_at(self.now())

    @property
    def site(self) -> str:
        """Return this site's name."""
        return self.settings.site.name


def delays() -> Iterator[float]:
    """Yield how long to wait before each next try: quick at first, then patient."""
    yield from (0.1, 0.1, 0.2, 0.5, *[1.0] * 30)
    while True:
        yield 5.0
