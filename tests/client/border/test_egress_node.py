"""Every request of a real node passes its border: on the list, on record, byte for byte."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from larrey_client import gate
from larrey_client.agent import Agent
from larrey_client.egress_log import Logged, open_log, unaccounted
from larrey_client.flower import make_give, open_take
from larrey_client.settings import SiteSettings
from larrey_client.work import Worker
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import LarreyError, Refusal
from larrey_protocol.refusals import ABOUT_DATA, MAY_LEAVE
from larrey_protocol.signed import Receipt, Signed, open_signed
from larrey_protocol.study import Study
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.client.border.watched import WatchingPeer
from tests.client.node.conftest import Pki
from tests.client.node.peer import Given, wait_until, wrap
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

Approve = Callable[[Agent, Study], Study]
STUDY = make_study()


@pytest.fixture
def log(settings: SiteSettings, agent: Agent) -> Logged:
    return open_log(settings.site.state)


def receipt_of(given: Given, pki: Pki) -> Receipt:
    return open_signed(Signed.from_bytes(given.receipt), Receipt, pki.signing.public)


def test_no_byte_of_a_whole_study_is_unaccounted(
    agent: Agent, peer: WatchingPeer, approve: Approve, trainer: SmallTrainer, log: Logged
) -> None:
    approve(agent, STUDY)
    for number in (1, 2, 3):
        assert peer.request(peer.first_task(STUDY, number)).fields["code"] == ""
    trainer.fail = LarreyError("trainer-failed", "told here only")
    assert peer.request(peer.first_task(STUDY, 4)).fields["code"] != ""
    peer.end(STUDY.digest)
    wait_until(lambda: log.total_bytes() == peer.received_bytes)
    assert unaccounted(log.total_bytes(), peer.received_bytes) == 0
    assert {method for method, _ in peer.received} >= {
        "Exchange/Take", "Exchange/Fetch", "Exchange/Store", "Exchange/Give",
        "Studies/List", "Studies/Answer",
    }  # fmt: skip


def test_what_the_peer_got_is_what_the_log_shows(
    agent: Agent, peer: WatchingPeer, approve: Approve, log: Logged
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    given = peer.request(task)
    wait_until(lambda: log.total_bytes() == peer.received_bytes)
    for method, data in list(peer.received):
        if method != "Exchange/Store":
            assert log.payload(digest_bytes(data)) == data
    update = given.fields["update"]
    assert log.payload(update) == peer.uploads[update]


def test_the_log_says_for_which_study_and_round_it_left(
    agent: Agent, peer: WatchingPeer, approve: Approve, log: Logged
) -> None:
    peer.request(peer.first_task(approve(agent, STUDY)))
    rows = {row["method"]: row for row in log.messages(STUDY.digest)}
    assert set(rows) == {"Studies/Answer", "Exchange/Fetch", "Exchange/Store", "Exchange/Give"}
    for method in ("Exchange/Fetch", "Exchange/Store", "Exchange/Give"):
        assert (rows[method]["round"], rows[method]["phase"]) == (1, "train")


def test_an_update_stays_on_record_after_its_round(
    agent: Agent, peer: WatchingPeer, approve: Approve, log: Logged
) -> None:
    approve(agent, STUDY)
    first, _ = (peer.request(peer.first_task(STUDY, number)) for number in (1, 2))
    update = str(first.fields["update"])
    assert not (agent.node.store.spool / update.removeprefix("sha256:")).exists()
    assert log.payload(update) == peer.uploads[update]


def test_what_is_not_listed_is_neither_sent_nor_logged(
    agent: Agent, peer: WatchingPeer, log: Logged
) -> None:
    before = len(log.messages())
    with pytest.raises(Refusal) as refusal:
        agent.node.exchange.answer(b"KeyError: 'Dupont' in /data/heart.csv")
    assert refusal.value.code == "egress-not-listed"
    assert len(log.messages()) == before
    assert not [data for _, data in peer.received if b"Dupont" in data]


def test_a_reply_with_one_field_more_does_not_leave(agent: Agent, peer: WatchingPeer) -> None:
    incoming = open_take(wrap(asdict(peer.first_task(STUDY))))
    assert incoming is not None
    good = make_give(incoming, update="", code="site-not-ready", receipt=b"")
    more = wire.GiveRequest.FromString(good.SerializeToString())
    more.objects[0].content += b"patient 17"
    envelope = wire.GiveRequest.FromString(good.SerializeToString())
    envelope.message += b"\x9a\x06\x07patient"  # a field that no version knows
    for request in (more, envelope, wire.GiveRequest(message=b"text")):
        with pytest.raises(Refusal) as refusal:
            agent.node.exchange.give(request)
        assert refusal.value.code == "egress-not-listed"


def test_a_code_that_is_not_on_the_list_leaves_as_another(
    agent: Agent, peer: WatchingPeer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.fail = LarreyError("column-hiv-status-missing", "told here only")
    assert peer.request(task).fields["code"] == "node-failed"
    with agent.node.store.reading() as records:
        codes = [record.code for record in records.audit()]
    assert "column-hiv-status-missing" in codes


def test_the_receipt_commits_to_the_rows_and_another_study_s_to_nothing_alike(
    agent: Agent, peer: WatchingPeer, approve: Approve, pki: Pki
) -> None:
    commitments = []
    for study in (STUDY, make_study(study__version=2)):
        approve(agent, study)
        for number in (1, 2):
            given = peer.request(peer.first_task(study, number))
            commitments.append(receipt_of(given, pki).snapshot)
    assert commitments[0].startswith("hmac-sha256:")
    assert commitments[0] == commitments[1] != commitments[2] == commitments[3]


class Waits(threading.Event):
    """An event that notes how long it was waited for, and comes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout or 0.0)
        return False


@pytest.mark.parametrize("is_refused", [False, True])
def test_an_answer_that_touched_the_data_waits_for_its_bucket(
    agent: Agent, peer: WatchingPeer, approve: Approve, trainer: SmallTrainer,
    settings: SiteSettings, is_refused: bool,
) -> None:  # fmt: skip
    task = peer.first_task(approve(agent, STUDY))
    trainer.fail = LarreyError("trainer-failed", "told here only") if is_refused else None
    policy = settings.policy.model_copy(update={"completion_bucket_s": 5.0})
    padded = settings.model_copy(update={"policy": policy})
    waits = Waits()
    node = replace(agent.node, settings=padded, stopping=waits, monotonic=lambda: 100.0)
    incoming = open_take(wrap(asdict(task)))
    assert incoming is not None
    Worker(node).answer(incoming, 97.0)
    assert waits.asked == [2.0]
    Worker(node).answer(incoming, 97.0)
    assert waits.asked == ([2.0, 2.0] if is_refused else [2.0])  # a stored answer touches none


def test_the_two_logs_are_closed_to_others(settings: SiteSettings, agent: Agent) -> None:
    names = ("egress.db", "access.db", "trail.anchor")
    modes = [(Path(settings.site.state) / name).stat().st_mode & 0o077 for name in names[:2]]
    assert modes == [0, 0]


@pytest.mark.parametrize("code", sorted(ABOUT_DATA))
def test_a_refusal_that_tells_something_about_rows_leaves_as_the_one_code(
    agent: Agent, peer: WatchingPeer, approve: Approve, trainer: SmallTrainer, code: str
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.load_fail = Refusal(code, "told here only")
    assert peer.request(task).fields["code"] == "site-not-ready"
    assert code not in MAY_LEAVE


def test_every_code_of_the_gate_may_leave_but_the_one_about_numbers() -> None:
    codes = set(re.findall(r"^ +\d+  ([a-z]+(?:-[a-z]+)+) ", gate.__doc__ or "", re.MULTILINE))
    assert len(codes) > 20
    assert codes - MAY_LEAVE == {"units-below-minimum"}
