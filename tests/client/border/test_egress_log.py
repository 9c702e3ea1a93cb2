"""The log of what left: every byte, its copy for a time, its digest for good."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from larrey_client.border import Border
from larrey_client.egress_log import DATABASE, EgressLog, Logged, Sent, open_log, unaccounted
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import Refusal, UsageError
from larrey_protocol.v1 import larrey_pb2 as wire

STUDY = "sha256:" + "a" * 64
DAY = 86400.0


def sent(
    data: bytes, *, at: float = 0.0, study: str = STUDY, method: str = "Exchange/Give"
) -> Sent:
    return Sent(at, method, study, 1, "train", "", len(data), digest_bytes(data))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EgressLog]:
    made = EgressLog(tmp_path)
    yield made
    made.close()


@pytest.fixture
def read(log: EgressLog, tmp_path: Path) -> Iterator[Logged]:
    made = open_log(tmp_path)
    yield made
    made.connection.close()


def test_what_left_is_shown_byte_for_byte(log: EgressLog, read: Logged) -> None:
    log.add(sent(b"one"), b"one")
    (row,) = read.messages(STUDY)
    assert (row["bytes"], row["digest"], row["is_kept"]) == (3, digest_bytes(b"one"), True)
    assert read.payload(row["digest"]) == read.payload(row["digest"][7:19]) == b"one"


def test_an_uploaded_file_stays_after_its_spool_entry_is_gone(
    log: EgressLog, read: Logged, tmp_path: Path
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"update")
    seq = log.add_blob(
        Sent(0.0, "Exchange/Store", STUDY, 1, "train", "", 4, digest_bytes(b"update")), blob
    )
    log.count_part(seq, 5)
    blob.unlink()
    assert read.payload(digest_bytes(b"update")) == b"update"
    assert read.total_bytes() == 9


def test_the_parts_of_a_stream_are_counted_each_before_it_goes(
    log: EgressLog, read: Logged, tmp_path: Path
) -> None:
    border = Border(log, tmp_path, now=lambda: 0.0)
    part = wire.StorePart(digest=digest_bytes(b"update"), total_bytes=12, data=b"update")
    parts = border.let_parts_through("/larrey.v1.Exchange/Store", iter([part, part]))
    for count in (1, 2):
        next(parts)
        assert read.total_bytes() == count * part.ByteSize()
    (row,) = read.messages()
    assert (row["digest"], row["method"]) == (part.digest, "Exchange/Store")


def test_what_could_not_be_written_leaves_no_trace_and_the_log_goes_on(
    log: EgressLog, read: Logged
) -> None:
    unwritable = Sent(0.0, "Exchange/Give", STUDY, 1, "train", "", 3, None)  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        log.add(unwritable)
    log.add(sent(b"next"), b"next")
    assert [row["digest"] for row in read.messages()] == [digest_bytes(b"next")]


@pytest.mark.parametrize(
    "part",
    [
        wire.StorePart.FromString(b"\x9a\x06\x07patient"),  # a field that no version knows
        wire.StorePart(digest="sha256:Dupont"),
        wire.TakeRequest(),
    ],
)
def test_a_part_of_an_upload_that_is_not_listed_ends_it(
    log: EgressLog, read: Logged, tmp_path: Path, part: Message
) -> None:
    border = Border(log, tmp_path, lambda: 0.0)
    good = wire.StorePart(digest=STUDY, total_bytes=8, data=b"1234")
    leaving = border.let_parts_through("/larrey.v1.Exchange/Store", iter([good, part, good]))
    assert next(leaving) == good
    with pytest.raises(Refusal, match="egress-not-listed"):
        next(leaving)
    assert list(leaving) == []
    assert read.messages()[0]["bytes"] == good.ByteSize()


def test_polls_that_never_repeat_fill_no_disk_and_are_counted_all_the_same(
    log: EgressLog, read: Logged
) -> None:
    said = [b"%06d" % number for number in range(1500)]
    for one in said:
        log.poll(sent(one, at=10.0, study="", method="Exchange/Take"), one)
    rows = read.polls()
    assert len(rows) == 1001
    assert [row["count"] for row in rows if not row["digest"]] == [500]
    assert read.total_bytes() == sum(map(len, said))
    log.poll(sent(said[-1], at=4000.0, study="", method="Exchange/Take"), said[-1])
    assert read.payload(digest_bytes(said[-1])) == said[-1]


def test_polls_are_counted_by_the_hour(log: EgressLog, read: Logged) -> None:
    for at in (0.0, 20.0, 3599.0, 3600.0):
        log.poll(sent(b"take", at=at, study=""), b"take")
    assert [(row["hour"], row["count"], row["bytes"]) for row in read.polls()] == [
        (0, 3, 12),
        (3600, 1, 4),
    ]
    assert read.messages() == []
    assert read.total_bytes() == 16


def test_a_copy_goes_after_its_time_and_its_digest_stays(
    log: EgressLog, read: Logged, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(b"old")
    log.add_blob(sent(b"old"), tmp_path / "blob")
    log.add(sent(b"new", at=50 * DAY), b"new")
    assert log.purge(now=91 * DAY, days=90) == 1
    assert [row["is_kept"] for row in read.messages()] == [False, True]
    with pytest.raises(UsageError, match="no single kept payload"):
        read.payload(digest_bytes(b"old"))
    assert list((tmp_path / "egress").iterdir()) == []


def test_copies_of_a_closed_study_go_at_once(log: EgressLog, read: Logged) -> None:
    log.add(sent(b"mine"), b"mine")
    log.add(sent(b"other", study="sha256:" + "b" * 64), b"other")
    assert log.purge(now=1.0, days=90, closed=[STUDY]) == 1
    assert read.payload(digest_bytes(b"other")) == b"other"


def test_the_log_survives_its_process_and_is_closed_to_others(
    log: EgressLog, tmp_path: Path
) -> None:
    log.add(sent(b"one"), b"one")
    again = EgressLog(tmp_path)  # the first one was never closed, as after kill -9
    again.close()
    found = open_log(tmp_path)
    assert found.messages()[0]["digest"] == digest_bytes(b"one")
    found.connection.close()
    assert (tmp_path / DATABASE).stat().st_mode & 0o077 == 0


def test_a_message_costs_little_and_no_flush(log: EgressLog) -> None:
    start = time.process_time()
    for number in range(200):
        data = b"%d" % number * 1000
        log.add(sent(data), data)
    assert (time.process_time() - start) / 200 < 0.001
    assert log._connection.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL


def test_bytes_are_unaccounted_only_if_the_peer_has_more(log: EgressLog) -> None:
    assert [unaccounted(10, peer) for peer in (9, 10, 13)] == [0, 0, 3]


def test_there_is_nothing_to_read_where_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing ever left"):
        open_log(tmp_path)
