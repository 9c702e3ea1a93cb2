"""Witnesses off the host, and what a node does with what they and others kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from larrey_client.anchors import open_anchor
from larrey_client.explain.status import explain_witness
from larrey_client.settings import SiteSettings
from larrey_client.watch import Anchors, known_anchors, open_watch
from larrey_client.witness import FileWitness, Sink, read_anchors
from larrey_client.witness_settings import Witness
from larrey_client.witnessed import keep_witnessed, witnessed
from larrey_protocol.errors import FileError, IntegrityError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.roster import Seat
from larrey_protocol.signed import sign
from tests.client.ledger.conftest import State


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share" / "anchors.log"


Start = Callable[..., Anchors]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts the anchors of a state as a node does."""
    started: list[Anchors] = []

    def make(state: State, witness: Witness | None = None, *, is_optional: bool = False) -> Anchors:
        started.append(
            open_watch(
                state.store,
                "alpha",
                state.key,
                witness or Witness(),
                lambda: 12.0,
                is_optional=is_optional,
            )
        )
        return started[-1]

    yield make
    for anchors in started:
        anchors.close()


def test_each_commit_is_one_line_that_the_next_start_reads(
    state: State, start: Start, share: Path
) -> None:
    anchors = start(state, Witness(file=share))
    for _ in range(3):
        state.work()
        anchors.publish()
    found = read_anchors(share, state.key.public)
    assert len(found) == len(share.read_bytes().splitlines()) == 3
    assert found[-1].head == state.store.ledger.head()
    start(state, Witness(file=share))


def test_a_node_behind_its_witness_does_not_start(state: State, start: Start, share: Path) -> None:
    state.save()
    anchors = start(state, Witness(file=share))
    state.work()
    anchors.publish()
    anchors.close()
    state.restore()
    with pytest.raises(IntegrityError, match="ledger-behind"):
        start(state, Witness(file=share))


def test_a_node_whose_witness_is_away_does_not_start_unless_the_policy_says_so(
    state: State, start: Start, tmp_path: Path
) -> None:
    away = Witness(file=tmp_path / "not-mounted" / "anchors.log")
    with pytest.raises(FileError, match="witness-unreachable"):
        start(state, away)
    start(state, away, is_optional=True)


def test_a_share_that_was_not_mounted_is_not_taken_for_an_empty_one(
    state: State, start: Start, share: Path
) -> None:
    start(state, Witness(file=share)).publish()
    share.unlink()
    with pytest.raises(FileError, match="witness-unreachable"):
        start(state, Witness(file=share))


def test_lines_of_others_and_torn_lines_are_passed_over(state: State, share: Path) -> None:
    mine, foreign = state.anchor(), sign(state.anchor().anchor, SigningKey.generate())
    torn = mine.signed.to_bytes()[:40]
    share.write_bytes(b"hello\n\xff\n" + foreign.to_bytes() + b"\n" + torn)
    FileWitness(share).write(mine.signed.to_bytes())
    assert read_anchors(share, state.key.public) == [mine]


def test_only_the_end_of_a_long_file_is_read(state: State, share: Path) -> None:
    line = state.anchor().signed.to_bytes()
    for _ in range(5):
        FileWitness(share).write(line)
    assert len(read_anchors(share, state.key.public, tail=2 * len(line) + 10)) == 2


def test_a_witness_that_hangs_does_not_hold_the_others_up() -> None:
    release, taken = threading.Event(), []

    def write(line: bytes) -> None:
        release.wait(10)
        taken.append(line)

    sink = Sink("slow", write)
    last = [sink.put(b"%d" % number) for number in range(600)][-1]
    assert not last.is_set()
    release.set()
    assert last.wait(5)
    sink.close()
    assert len(taken) <= 257  # the queue, and the one that was held
    assert taken[-1] == b"599"


def test_a_witness_that_comes_back_gets_what_comes_next(share: Path) -> None:
    away = share.parent / "later" / "anchors.log"
    sink = Sink("file", FileWitness(away).write)
    first = sink.put(b"one")
    while sink.is_up:
        threading.Event().wait(0.001)
    away.parent.mkdir()
    assert sink.put(b"two").wait(5)
    sink.close()
    assert not first.is_set()
    assert away.read_bytes() == b"two\n"


def test_a_collector_gets_framed_rfc_5424_messages(state: State, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        anchors = start(state, Witness(syslog=f"127.0.0.1:{server.getsockname()[1]}"))
        line = anchors.publish()
        peer, _ = server.accept()
        with peer:
            peer.settimeout(5)
            size, _, rest = peer.recv(1 << 20).partition(b" ")
    assert int(size) == len(rest)
    assert rest == b"<109>1 1970-01-01T00:00:12.000+00:00 alpha larrey-site - anchor - " + line


def test_a_node_without_its_collector_works(state: State, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    anchors = start(state, Witness(syslog=f"127.0.0.1:{port}"))
    assert anchors.publish() == anchors.latest()


def test_an_anchor_is_made_anew_only_after_a_commit_and_then_at_once(
    state: State, start: Start
) -> None:
    anchors = start(state)
    before = anchors.latest()
    assert anchors.latest() == before
    for commit in (state.work, lambda: _note(state)):  # ledger and trail; the trail alone
        commit()
        data = anchors.latest()
        anchor = open_anchor(data, state.key.public).anchor
        assert data != before
        assert anchor.ledger_head == state.store.ledger_head
        assert anchor.audit_head == state.store.audit_head
        assert sum(one.units for one in anchor.spent) == sum(state.store.ledger.spent().values())
        before = data


def _note(state: State) -> None:
    with state.store.transaction():
        state.store.audit("noted", "alpha")


def lost(state: State) -> bytes:
    """Return an anchor of a tail that the state then loses."""
    state.save()
    state.work()
    anchor = state.anchor().signed.to_bytes()
    state.restore()
    return anchor


def test_an_anchor_that_others_return_stops_the_node_for_good(state: State, start: Start) -> None:
    anchor = lost(state)
    anchors = start(state)
    anchors.require()
    anchors.seen([anchor])
    with pytest.raises(Refusal, match="ledger-behind"):
        anchors.require()
    assert [r.action for r in state.store.records.audit()][-1] == "state-behind"
    state.reopen()
    with pytest.raises(IntegrityError, match="ledger-behind"):
        start(state)


def test_a_coordinator_cannot_stop_a_node_with_what_it_made_up(state: State, start: Start) -> None:
    forged = sign(state.anchor().anchor.model_copy(update={"ledger_head": "99:"}),
                  SigningKey.generate()).to_bytes()  # fmt: skip
    anchors = start(state)
    anchors.seen([forged, b"x", b"", state.anchor().signed.to_bytes()] * 3)
    anchors.require()
    ignored = [r.code for r in state.store.records.audit() if r.action == "anchor-ignored"]
    assert sorted(ignored) == ["malformed-document", "malformed-document", "wrong-signer"]


def test_a_site_keeps_the_newest_anchor_of_each_seat_and_gives_it_back(
    state: State, make_state: Callable[[str], State]
) -> None:
    other = make_state("other")
    other.begin()
    old = other.anchor().signed.to_bytes()
    other.work()
    new = other.anchor().signed.to_bytes()
    seats = [Seat(name="alpha", key=other.key.public)]
    assert keep_witnessed(state.store, seats, [new, old, new]) == 1
    assert witnessed(state.store, seats) == [new]
    state.reopen()
    assert witnessed(state.store, seats) == [new]


def test_a_kept_anchor_that_somebody_changed_is_none(state: State, start: Start) -> None:
    start(state).seen([state.anchor().signed.to_bytes()])
    state.store.records.connection.execute("UPDATE witnessed SET signed = x'00'")
    assert known_anchors(state.store, state.key.public, Witness()) == []
    start(state).seen([state.anchor().signed.to_bytes()])
    assert len(known_anchors(state.store, state.key.public, Witness())) == 1


def test_anchors_of_no_seat_are_not_kept(state: State, make_state: Callable[[str], State]) -> None:
    other = make_state("other")
    anchor = other.anchor().signed.to_bytes()
    for seats in ([], [Seat(name="beta", key=other.key.public)]):
        assert keep_witnessed(state.store, seats, [anchor, b"x", b"[" * (1 << 18)]) == 0
    assert witnessed(state.store, [Seat(name="alpha", key=other.key.public)]) == []


def test_the_way_out_finds_every_anchor_there_is(state: State, start: Start, share: Path) -> None:
    returned = lost(state)
    anchors = start(state, Witness(file=share))
    anchors.publish()
    anchors.seen([returned])
    found = known_anchors(state.store, state.key.public, Witness(file=share))
    assert {one.signed.to_bytes() for one in found} == {returned, anchors_line(share)}


def anchors_line(share: Path) -> bytes:
    return share.read_bytes().splitlines()[-1]


def test_the_witness_file_counts_from_the_settings_folder() -> None:
    assert Witness(file=Path("w.log")).rooted(Path("/site")).file == Path("/site/w.log")
    assert Witness().rooted(Path("/site")) == Witness()
    assert SiteSettings.model_fields["witness"].default == Witness()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Witness(), "none: the coordinator and other sites alone would tell"),
        (Witness(syslog="log:601"), "syslog, not read at start"),
        (Witness(file=Path("w.log")), "file"),
        (Witness(file=Path("w.log"), syslog="log:601"), "file and syslog"),
    ],
)
def test_status_says_what_would_find_an_old_copy(settings: Witness, words: str) -> None:
    assert explain_witness(settings.kinds).startswith(words)
