"""The conductor's thread: real time, real threads, sites that answer from their own thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from larrey_protocol.keys import SigningKey
from larrey_protocol.study import Study
from larrey_server.aggregator import Aggregator
from larrey_server.conductor import Conductor
from larrey_server.journal import Journal, StudyRow
from larrey_server.rounds import Task
from larrey_server.spool import Spool
from tests.server.peers import until
from tests.server.study_bench import SIGNER, SITES, honest_update, make_receipt, make_study


@dataclass
class Sites:
    """Sites behind a courier; each answers at once from a pool of threads."""

    study: Study
    spool: Spool
    journal: Journal
    conductor: Conductor | None = None
    key: SigningKey = field(default_factory=SigningKey.generate)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))
    unannounced: list[Task] = field(default_factory=list)

    def send(self, site: str, task: Task) -> None:
        kept = self.journal.snapshot(task.study) or {}
        if (kept.get("round"), kept.get("model")) != (task.round, task.model):
            self.unannounced.append(task)
        self.pool.submit(self.answer, site, task)

    def cancel(self, site: str, task: Task) -> None:
        pass

    def answer(self, site: str, task: Task) -> None:
        update = honest_update(self.study, site, task.model)
        receipt = make_receipt(self.study, site, task.key, update, self.key)
        digest = self.spool.add_bytes(update)
        assert self.conductor is not None
        self.conductor.reply(site, task.key, update=digest, receipt=receipt, code="")


class Coordinator:
    """One process's worth of coordinator over a folder."""

    def __init__(self, folder: Path, study: Study, aggregator: Aggregator) -> None:
        self.journal = Journal.open(folder / "coordinator.db")
        self.spool = Spool.open(folder / "spool")
        self.events: list[dict[str, Any]] = []
        self.sites = Sites(study, self.spool, self.journal)
        self.journal.propose(StudyRow(study.digest, study.name, b"p", "proposed", 0.0), "operator")
        self.conductor = Conductor(
            study,
            journal=self.journal,
            spool=self.spool,
            aggregator=aggregator,
            courier=self.sites,
            clock=time.monotonic,
            publish=self.events.append,
            signer=SIGNER,
        )
        self.sites.conductor = self.conductor

    def connect(self) -> None:
        for site in SITES:
            self.conductor.site_up(site)

    def stop(self) -> None:
        self.conductor.stop()
        self.sites.pool.shutdown()
        self.journal.close()


@pytest.fixture(scope="module")
def aggregator() -> Iterator[Aggregator]:
    process = Aggregator.start()
    yield process
    process.stop()


def test_a_study_runs_to_its_end_on_its_own_thread(tmp_path: Path, aggregator: Aggregator) -> None:
    here = Coordinator(tmp_path, make_study(rounds=5), aggregator)
    here.conductor.launch(SITES)
    here.connect()
    assert here.conductor.join(20)
    assert here.conductor.status()["outcome"] == "COMPLETE"
    here.stop()


def test_nothing_is_announced_that_the_journal_does_not_hold(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    here = Coordinator(tmp_path, make_study(rounds=5), aggregator)
    here.conductor.launch(SITES)
    here.connect()
    assert here.conductor.join(20)
    assert here.sites.unannounced == []
    here.stop()


def test_a_stopped_study_goes_on_in_the_next_process(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    study = make_study(rounds=40)
    here = Coordinator(tmp_path, study, aggregator)
    here.conductor.launch(SITES)
    here.connect()
    give_up = time.monotonic() + 20
    while here.conductor.status()["applied"] < 3 and time.monotonic() < give_up:
        here.conductor.join(0.001)
    here.stop()
    again = Coordinator(tmp_path, study, aggregator)
    assert 3 <= again.conductor.status()["applied"] < 40
    again.conductor.resume()
    again.connect()
    assert again.conductor.join(20)
    assert again.conductor.status()["outcome"] == "COMPLETE"
    again.stop()


def test_an_ended_study_has_ended_for_the_next_process_too(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    study = make_study(rounds=1)
    here = Coordinator(tmp_path, study, aggregator)
    here.conductor.launch(SITES)
    here.connect()
    assert here.conductor.join(20)
    here.stop()
    again = Coordinator(tmp_path, study, aggregator)
    assert again.conductor.join(0)
    again.stop()


def test_a_failure_that_no_rule_knows_stalls_the_study_until_it_is_mended(
    tmp_path: Path, aggregator: Aggregator
) -> None:
    here = Coordinator(tmp_path, make_study(rounds=1), aggregator)
    (tmp_path / "studies").write_text("in the way of the checkpoints")
    here.conductor.launch(SITES)
    until(lambda: bool(here.conductor.status()["stalled"]))
    assert here.conductor.status()["stalled"] == "internal-error"
    (tmp_path / "studies").unlink()
    here.connect()
    assert here.conductor.join(20)
    assert here.conductor.status()["outcome"] == "COMPLETE"
    kinds = [event["event"] for event in here.events]
    assert kinds.index("study-stalled") < kinds.index("launched")
    assert kinds.count("study-stalled") == kinds.count("study-went-on") == 1
    here.stop()
