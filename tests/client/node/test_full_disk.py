"""A site whose disk is full spends nothing, and serves again by itself when there is room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.run import open_node
from larrey_client.settings import load_settings
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of, held
from tests.client.node.peer import Peer, wait_until
from tests.client.node.trainers import SmallTrainer
from tests.system.mounts import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 8) as made:
        yield made


@pytest.fixture
def cramped(site_file: Path, pki: Pki, trainer: SmallTrainer, disk: SmallDisk) -> Iterator[Agent]:
    found = load_settings(site_file)
    site = found.site.model_copy(update={"state": disk.folder / "state"})
    settings = disk.run(lambda: pki.people.sign_charter(found.model_copy(update={"site": site})))
    node = open_node(settings, lambda _: trainer, threading.Event())
    yield disk.run(node.__enter__)
    disk.run(lambda: node.__exit__(None, None, None))


def test_a_site_on_a_full_disk_spends_nothing_and_serves_again_when_there_is_room(
    cramped: Agent,
    disk: SmallDisk,
    peer: Peer,
    approve: Approve,
    trainer: SmallTrainer,
) -> None:
    agent = cramped
    task = peer.first_task(disk.run(lambda: approve(agent, STUDY)))
    wait_until(lambda: agent.is_connected)
    disk.fill()
    peer.send(task)
    wait_until(lambda: agent.node.store.fault == "disk-full")
    metrics = disk.run(agent.node.metrics.text).decode()
    assert 'storage_fault{code="disk-full"} 1.0' in metrics
    assert trainer.trained == []
    assert held(agent).rounds_used == 0
    assert peer.uploads == {}
    assert {one.fields["code"] for one in peer.given} <= {"site-not-ready", "node-failed"}
    disk.free()
    count = len(peer.given)
    peer.send(task)
    wait_until(lambda: any(one.fields["update"] for one in peer.given[count:]), 20)
    assert held(agent).rounds_used == 1
    assert [action for action, _ in audit_of(agent)].count("round-reserved") == 1
    wait_until(lambda: agent.is_connected and not agent.node.store.fault)


def test_a_site_whose_state_takes_no_writes_says_site_not_ready_and_no_more(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    database = agent.node.store._connection
    database.execute("PRAGMA query_only = ON")
    given = peer.request(task)
    assert given.fields["code"] == "site-not-ready"
    assert agent.node.store.fault == "state-read-only"
    assert (trainer.trained, held(agent).rounds_used) == ([], 0)
    database.execute("PRAGMA query_only = OFF")
    assert peer.request(task).fields["update"]
    assert agent.node.store.fault == ""
