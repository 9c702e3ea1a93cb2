"""Models on disk while they come: resumed after any restart, believed by their digest alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.agent import Agent
from larrey_client.model_spool import Download, ModelSpool, disk_errors
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import IntegrityError, LarreyError, TransportError
from tests.client.node.facts import STUDY, Approve, held
from tests.client.node.peer import Peer, wait_until

DATA = bytes(range(256)) * 20
DIGEST = digest_bytes(DATA)
ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")


def content(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


@given(st.lists(st.integers(0, len(DATA)), max_size=6))
def test_a_download_goes_on_where_it_was_cut_and_is_the_whole_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    spool = ModelSpool(tmp_path_factory.mktemp("state"))
    come = 0
    for cut in sorted(cuts):
        with spool.begin(ONE, DIGEST, len(DATA)) as download:
            assert download.received == come
            download.add(DATA[come:cut])
            come = cut
    with spool.begin(ONE, DIGEST, len(DATA)) as download:
        download.add(DATA[download.received :])
        assert content(download.finish()) == DATA
    with spool.begin(ONE, DIGEST, len(DATA)) as again:
        assert again.is_whole
        assert content(again.finish()) == DATA


def test_what_lies_there_is_closed_to_others_and_one_model_a_study(tmp_path: Path) -> None:
    spool = ModelSpool(tmp_path)
    for study in (ONE, TWO):
        with spool.begin(study, DIGEST, len(DATA)) as download:
            download.add(DATA)
            os.close(download.finish())
    with spool.begin(ONE, TWO, 100) as download:
        download.add(b"begun")
    assert spool.kept(ONE) == [("", 5)]
    assert spool.kept(TWO) == [(DIGEST, len(DATA))]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    spool.forget(ONE)
    spool.forget(ONE)
    assert spool.kept(ONE) == []
    assert spool.kept(TWO)


@pytest.mark.parametrize("sent", [b"", DATA[:-1], DATA[:-1] + b"?"])
def test_what_is_not_the_model_is_removed(tmp_path: Path, sent: bytes) -> None:
    spool = ModelSpool(tmp_path)
    with spool.begin(ONE, DIGEST, len(DATA)) as download:
        download.add(sent)
        with pytest.raises(IntegrityError, match="model-altered"):
            download.finish()
    assert spool.kept(ONE) == []


def test_more_than_the_model_is_not_written(tmp_path: Path) -> None:
    spool = ModelSpool(tmp_path)
    with spool.begin(ONE, DIGEST, len(DATA)) as download:
        download.add(DATA)
        with pytest.raises(IntegrityError, match="model-altered"):
            download.add(b"!")
    assert spool.kept(ONE) == []


@pytest.mark.parametrize("torn", [b"?" * 7, DATA + b"?", b"?" * len(DATA)])
def test_what_a_power_cut_tore_is_fetched_once_more_and_not_blamed_on_the_coordinator(
    tmp_path: Path, torn: bytes
) -> None:
    path = tmp_path / "model"
    path.with_name("model.part").write_bytes(torn)
    download = Download(path, DIGEST, len(DATA))
    download.add(DATA[download.received :])
    if len(torn) <= len(DATA):
        with pytest.raises(TransportError, match="model-torn"):
            download.finish()
        assert download.received == 0
        download.add(DATA)
    assert content(download.finish()) == DATA
    download.close()


def test_a_whole_model_that_changed_on_disk_is_not_used(tmp_path: Path) -> None:
    spool = ModelSpool(tmp_path)
    with spool.begin(ONE, DIGEST, len(DATA)) as download:
        download.add(DATA)
        os.close(download.finish())
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_bytes(b"?" + DATA[1:])
    with spool.begin(ONE, DIGEST, len(DATA)) as download:
        with pytest.raises(TransportError, match="model-torn"):
            download.finish()
        download.add(DATA)
        assert content(download.finish()) == DATA


def test_a_full_disk_has_a_code_and_a_next_step_and_other_errors_stay_what_they_are() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(LarreyError, match="disk-full"), disk_errors():
        os.write(full, DATA)  # the kernel says that no room is left
    os.close(full)
    with pytest.raises(FileNotFoundError), disk_errors():
        os.stat("/there-is-no-such-file")


def test_nothing_but_digests_names_a_place(tmp_path: Path) -> None:
    spool = ModelSpool(tmp_path)
    for study, digest in (("../up", DIGEST), (ONE, "../../up")):
        with pytest.raises(ValueError, match="digits"), spool.begin(study, digest, 1):
            pass


def test_a_node_that_was_stopped_while_a_model_came_goes_on_where_it_was(
    start: Callable[[], Agent], peer: Peer, approve: Approve
) -> None:
    agent = start()
    asked = peer.first_task(approve(agent, STUDY))
    peer.cuts = 1 << 30
    peer.send(asked)
    wait_until(lambda: len(peer.fetch_offsets) > 1)
    again = start()
    assert held(again).rounds_used == 0
    peer.cuts, begun = 0, len(peer.fetch_offsets)
    assert peer.request(asked).fields["code"] == ""
    assert 0 < peer.fetch_offsets[begun] < asked.model_bytes


def test_a_repeated_training_fetches_no_model_twice(
    start: Callable[[], Agent], peer: Peer, approve: Approve, trainer
) -> None:
    agent = start()
    asked = peer.first_task(approve(agent, STUDY))
    trainer.fail = LarreyError("device-lost", "gone")
    assert peer.request(asked).fields["code"] == "device-lost"
    trainer.fail = None
    start()
    assert peer.request(asked, attempt=2).fields["code"] == ""
    assert peer.fetch_offsets == [0]


def test_a_model_that_was_torn_on_disk_costs_no_round(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    asked = peer.first_task(approve(agent, STUDY))
    with ModelSpool(agent.node.store.folder).begin(STUDY.digest, asked.model, 99) as download:
        download.add(b"torn")
    assert peer.request(asked).fields["code"] == ""
    assert peer.fetch_offsets[:2] == [4, 0]


def test_closing_a_study_removes_its_model_and_says_so(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    asked = peer.first_task(approve(agent, STUDY))
    peer.request(asked)
    models = ModelSpool(agent.node.store.folder)
    assert models.kept(STUDY.digest) == [(asked.model, asked.model_bytes)]
    agent.closing.close(STUDY.digest, "ines")
    assert models.kept(STUDY.digest) == []
    with agent.node.store.reading() as records:
        (receipt,) = records.documents("deletionreceipt")
    assert f'"digest":"{asked.model}","kind":"model"' in receipt.document
