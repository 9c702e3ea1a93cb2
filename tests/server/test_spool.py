"""The spool: names, resumed uploads, torn blobs, limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_server.spool import Spool

DATA = bytes(range(256)) * 40
DIGEST = digest_bytes(DATA)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool", limit_bytes=1 << 20)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "sha256:../x", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "",
             DIGEST + "\n"],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(spool: Spool, name: str) -> None:
    with pytest.raises(IntegrityError, match="bad-digest"):
        spool.path(name)


def test_a_stored_blob_is_complete_and_readable_by_digest(spool: Spool) -> None:
    assert spool.add_bytes(DATA) == DIGEST
    assert spool.complete(DIGEST)
    with open(spool.open_read(DIGEST), "rb") as file:
        assert file.read() == DATA


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=5).map(sorted))
def test_an_upload_resumes_after_any_cuts(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    for cut in [*cuts, len(DATA)]:
        spool = Spool.open(folder)  # also a restart
        have = spool.have(DIGEST)
        if spool.complete(DIGEST):
            break
        with spool.writer(DIGEST, len(DATA), have) as writer:
            writer.write(DATA[have:cut])
    assert spool.complete(DIGEST)


def test_a_cut_upload_is_not_complete(spool: Spool) -> None:
    with spool.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:100])
    assert (spool.have(DIGEST), spool.complete(DIGEST)) == (100, False)


def test_uploads_of_the_same_bytes_by_two_sites_do_not_meet(spool: Spool) -> None:
    with spool.writer(DIGEST, len(DATA), owner="alpha") as alpha:
        alpha.write(DATA[:100])
        with spool.writer(DIGEST, len(DATA), owner="beta") as beta:
            beta.write(DATA[:50])
            assert (spool.have(DIGEST, "alpha"), spool.have(DIGEST, "beta")) == (100, 50)
            alpha.write(DATA[100:])
            beta.write(DATA[50:])
    assert spool.complete(DIGEST)
    spool.drop(DIGEST)
    assert not list(spool.folder.iterdir())


def test_an_upload_may_step_back_but_not_leave_a_gap(spool: Spool) -> None:
    with spool.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:100])
    with pytest.raises(Refusal, match="upload-gap"), spool.writer(DIGEST, len(DATA), 101):
        pass
    with spool.writer(DIGEST, len(DATA), 50) as writer:
        writer.write(DATA[50:])
    assert spool.complete(DIGEST)


def test_bytes_that_are_not_the_blob_are_removed(spool: Spool) -> None:
    wrong = pytest.raises(IntegrityError, match="wrong-digest")
    with wrong, spool.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:-1] + b"?")
    assert list(spool.folder.iterdir()) == []


def test_more_than_the_announced_bytes_are_refused_while_they_come(spool: Spool) -> None:
    with pytest.raises(Refusal, match="upload-too-large"), spool.writer(DIGEST, 100) as writer:
        writer.write(DATA[:101])
    assert spool.have(DIGEST) == 0


def test_an_upload_over_the_limit_is_refused_before_a_byte_is_written(spool: Spool) -> None:
    with pytest.raises(Refusal, match="upload-too-large"), spool.writer(DIGEST, (1 << 20) + 1):
        pass
    assert list(spool.folder.iterdir()) == []


def test_a_newer_connection_takes_an_upload_over(spool: Spool) -> None:
    with spool.writer(DIGEST, len(DATA)) as old:
        old.write(DATA[:100])
        with spool.writer(DIGEST, len(DATA), 100) as new:
            with pytest.raises(Refusal, match="upload-superseded"):
                old.write(DATA[100:200])
            new.write(DATA[100:])
    assert spool.complete(DIGEST)


def test_a_blob_torn_by_a_power_cut_is_found_and_removed(spool: Spool) -> None:
    spool.add_bytes(DATA)
    spool.path(DIGEST).write_bytes(DATA[:-1] + b"\0")
    again = Spool.open(spool.folder)
    assert (again.complete(DIGEST), again.have(DIGEST)) == (False, 0)


def test_a_dropped_blob_stays_readable_for_whom_is_reading_it(spool: Spool) -> None:
    spool.add_bytes(DATA)
    with open(spool.open_read(DIGEST), "rb") as file:
        spool.drop(DIGEST)
        assert file.read() == DATA
    with pytest.raises(Refusal, match="blob-missing"):
        spool.open_read(DIGEST)


def test_an_adopted_blob_outlives_drops_until_every_owner_released_it(
    spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(DATA)
    for _ in range(2):
        spool.adopt(tmp_path / "model", DIGEST)
    spool.drop(DIGEST)
    spool.release(DIGEST)
    assert spool.complete(DIGEST)
    spool.release(DIGEST)
    assert not spool.complete(DIGEST)
    assert (tmp_path / "model").read_bytes() == DATA


def test_a_kept_blob_outlives_drops_until_it_is_released(spool: Spool) -> None:
    spool.add_bytes(DATA)
    spool.keep(DIGEST)
    spool.drop(DIGEST)
    assert spool.complete(DIGEST)
    spool.release(DIGEST)
    assert not spool.complete(DIGEST)


def test_an_upload_that_is_dropped_meanwhile_ends_without_a_trace(spool: Spool) -> None:
    with spool.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:100])
        spool.drop(DIGEST)
        with pytest.raises(Refusal, match="upload-superseded"):
            writer.write(DATA[100:])
    assert list(spool.folder.iterdir()) == []


def test_a_sweep_removes_what_is_old_and_held_by_nobody(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(DATA)
    spool.adopt(tmp_path / "model", DIGEST)
    old, fresh = spool.add_bytes(b"old"), spool.add_bytes(b"fresh")
    cut = digest_bytes(b"cut")
    with spool.writer(cut, 3) as writer:
        writer.write(b"c")
    for name in (old, cut, DIGEST):
        path = spool.path(name)
        os.utime(path if path.exists() else path.with_suffix(".part"), (1000.0, 1000.0))
    assert spool.sweep(before=2000.0) == 2
    left = {path.name for path in spool.folder.iterdir()}
    assert left == {spool.path(fresh).name, spool.path(DIGEST).name}
