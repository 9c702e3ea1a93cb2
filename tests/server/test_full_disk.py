"""A state folder that takes no writes: nothing is lost or announced, and all goes on by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from larrey_protocol.disk import DiskError
from larrey_protocol.errors import LarreyError
from larrey_protocol.study import Study
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, SitePeer, Work, until
from tests.system.mounts import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 8) as made:
        yield made


@pytest.fixture
def cramped(folder: Folder, disk: SmallDisk) -> Iterator[Federation]:
    hub = disk.run(lambda: Hub(folder.settings(disk.folder / "state")))
    (federation := Federation(folder, hub)).vouch("test/1")
    yield federation
    disk.run(hub.stop)


def opened(federation: Federation, tiny: Study, peers: list[SitePeer]) -> list[Work]:
    """Return what the sites of a launched study were asked."""
    digest = federation.propose(tiny)
    assert all(peer.approve(digest).recorded for peer in peers)
    federation.launch(digest)
    return [peer.work() for peer in peers]


def stalled(federation: Federation, tiny: Study) -> str:
    with federation.operator() as operator:
        (facts,) = [f for f in operator.list() if f["digest"] == tiny.digest]
    return str(facts["stalled"])


def test_a_full_disk_stalls_the_studies_and_they_go_on_when_there_is_room(
    cramped: Federation, disk: SmallDisk
) -> None:
    tiny, coordinator = study(), cramped.hub.coordinator
    with cramped.site("alpha") as alpha, cramped.site("beta") as beta:
        works = opened(cramped, tiny, [alpha, beta])
        disk.fill()
        head = coordinator.journal.head()
        with pytest.raises(grpc.RpcError) as caught:
            alpha.answer(works[0], tiny)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # the site tries again
        assert caught.value.details() == "disk-full"
        until(lambda: stalled(cramped, tiny) == "disk-full")
        assert not coordinator.is_sound()
        assert (
            b'larrey_coordinator_storage_fault{code="disk-full"} 1' in cramped.hub.metrics.expose()
        )
        with pytest.raises(LarreyError, match="disk-full"):
            cramped.propose(study(study__name="another"))
        assert coordinator.journal.head() == head  # nothing was announced
        disk.free()
        until(coordinator.is_sound)
        until(lambda: not stalled(cramped, tiny))
        for peer, work in zip((alpha, beta), works, strict=True):
            assert peer.answer(work, tiny).accepted
        assert {peer.work().fields["round"] for peer in (alpha, beta)} == {2}
        coordinator.journal.verify()
    conductor = coordinator.conductor(tiny.digest)
    assert conductor is not None
    assert conductor.status()["spares_left"] == tiny.file.training.spare_rounds


def test_a_round_that_closes_on_a_full_disk_is_applied_once_there_is_room(
    cramped: Federation, disk: SmallDisk
) -> None:
    tiny, coordinator = study(), cramped.hub.coordinator
    with cramped.site("alpha") as alpha, cramped.site("beta") as beta:
        works = opened(cramped, tiny, [alpha, beta])
        assert alpha.answer(works[0], tiny).accepted
        beta.fetch(str(works[1].fields["model"]))
        database = coordinator.journal._connection
        disk.run(lambda: database.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
        conductor = coordinator.conductor(tiny.digest)
        assert conductor is not None
        assert conductor.settle(5)
        with pytest.raises(DiskError):
            fill_and_commit(disk, coordinator.journal.try_commit)
        until(lambda: conductor.status()["stalled"] == "disk-full")
        assert conductor.status()["applied"] == 0
        disk.free()
        until(lambda: not conductor.status()["stalled"])
        assert beta.answer(works[1], tiny).accepted
        assert alpha.work().fields["round"] == 2
        assert conductor.status()["applied"] == 1


def fill_and_commit(disk: SmallDisk, commit: object) -> None:
    assert callable(commit)
    disk.fill()
    for _ in range(2000):  # what the write-ahead log has room for
        disk.run(commit)


def test_a_database_that_takes_no_writes_stalls_the_study_until_it_does(
    federation: Federation,
) -> None:
    tiny, coordinator = study(), federation.hub.coordinator
    database = coordinator.journal._connection
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        works = opened(federation, tiny, [alpha, beta])
        database.execute("PRAGMA query_only = ON")
        for peer, work in zip((alpha, beta), works, strict=True):
            assert peer.answer(work, tiny, seed=1).accepted
        until(lambda: stalled(federation, tiny) == "state-read-only")
        assert not coordinator.is_sound()
        database.execute("PRAGMA query_only = OFF")
        assert alpha.work().fields["round"] == 2
        assert coordinator.is_sound()


def test_a_database_that_another_program_holds_stalls_the_study_until_it_lets_go(
    federation: Federation,
) -> None:
    tiny, coordinator = study(), federation.hub.coordinator
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        works = opened(federation, tiny, [alpha, beta])
        other = sqlite3.connect(coordinator.state / "coordinator.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for peer, work in zip((alpha, beta), works, strict=True):
            assert peer.answer(work, tiny, seed=1).accepted
        until(lambda: coordinator.storage.fault == "state-locked")
        other.execute("ROLLBACK")
        other.close()
        assert alpha.work().fields["round"] == 2


def test_a_coordinator_does_not_start_on_a_disk_that_takes_no_writes(
    folder: Folder, disk: SmallDisk
) -> None:
    disk.lock()
    with pytest.raises(DiskError, match="state-read-only"):
        disk.run(lambda: Hub(folder.settings(disk.folder / "state")))
