"""While an incident is open nothing is deleted and no receipt says so; the study is over anyway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.agent import Agent
from larrey_client.closing import Closing, answers_closer
from larrey_client.deletion_paper import Paper
from larrey_client.logs import purge_study
from larrey_protocol.decisions import Deleted, DeletionReceipt
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Signed, open_signed
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.test_stops import at_door, code_at_door, code_of, order


@pytest.fixture
def frozen(agent: Agent, approve: Approve, peer: Peer) -> Study:
    """Return a study that was answered once, at a site whose people opened an incident."""
    study = approve(agent, STUDY)
    assert code_of(peer, study) == ""
    at_door(agent, "incident open", kind="suspected")
    return study


def receipts(agent: Agent) -> list[Signed]:
    with agent.node.store.reading() as records:
        return records.documents("deletionreceipt")


def spooled(agent: Agent) -> list[Path]:
    return list(agent.node.store.spool.iterdir())


def test_nobody_closes_a_study_while_an_incident_is_open(
    agent: Agent, frozen: Study, peer: Peer
) -> None:
    assert code_at_door(agent, "study close", study="tiny") == "incident-open"
    assert receipts(agent) == []
    assert peer.told == []
    assert spooled(agent)
    assert code_of(peer, frozen, 2) == ""  # a refusal changes nothing
    at_door(agent, "incident close", number=1)
    at_door(agent, "study close", study="tiny")
    assert spooled(agent) == []


def test_nobody_makes_the_site_leave_while_an_incident_is_open(
    agent: Agent, frozen: Study, pki: Pki, peer: Peer
) -> None:
    leaving = order(agent, pki, "leave")
    assert code_at_door(agent, "leave", signed=leaving) == "incident-open"
    with agent.node.store.reading() as records:
        assert records.documents("departure") == []
    at_door(agent, "incident close", number=1)
    assert at_door(agent, "leave", signed=leaving)["closed"] == 1


def test_an_order_to_close_ends_the_study_and_deletes_after_the_incident(
    agent: Agent, frozen: Study, peer: Peer, pki: Pki
) -> None:
    pki.people.order(agent, frozen, pki.consortium, verb="close")
    agent.closing.look(at_once=True)
    assert receipts(agent) == []
    assert spooled(agent)
    assert code_of(peer, frozen) == "study-closed"  # nor is the stored answer sent
    at_door(agent, "incident close", number=1)
    agent.closing.look(at_once=True)
    assert spooled(agent) == []
    (receipt,) = receipts(agent)
    told = open_signed(receipt, DeletionReceipt, pki.signing.public)
    assert "answer" in {item.kind for item in told.items}
    assert [code for action, code in audit_of(agent) if action == "study-closing"] == [
        "closed-by-order"
    ]


def test_no_person_resumes_what_waits_to_be_deleted(
    agent: Agent, frozen: Study, peer: Peer, pki: Pki
) -> None:
    pki.people.order(agent, frozen, pki.consortium, verb="close")
    agent.closing.look(at_once=True)
    resume = order(agent, pki, "resume", subject=frozen.digest)
    at_door(agent, "resume", signed=resume)
    assert code_of(peer, frozen) == "study-closed"


def test_a_closing_that_an_incident_overtakes_signs_no_receipt(
    agent: Agent, approve: Approve, peer: Peer
) -> None:
    study = approve(agent, STUDY)

    def overtaken(_study: str) -> list[None]:
        at_door(agent, "incident open", kind="suspected")
        purge_study(None, agent.node.store, study.digest)  # type: ignore[arg-type]
        return []

    agent.closing._closers = (*agent.closing._closers, overtaken)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="incident-open"):
        agent.closing.close(study.digest, "ines")
    assert receipts(agent) == []


def test_a_site_that_left_tells_so_after_everything_was_deleted(
    start: Callable[[], Agent], approve: Approve, peer: Peer, pki: Pki
) -> None:
    agent = start()
    approve(agent, STUDY)

    def overtaken(_study: str) -> list[None]:
        at_door(agent, "incident open", kind="suspected")
        raise Refusal("incident-open", "an incident was opened")

    agent.closing._closers = (*agent.closing._closers, overtaken)  # type: ignore[arg-type]
    assert code_at_door(agent, "leave", signed=order(agent, pki, "leave")) == "incident-open"
    agent = start()
    takes = peer.takes
    wait_until(lambda: peer.takes > takes + 2)
    assert peer.told == []
    at_door(agent, "incident close", number=1)
    agent.closing.look(at_once=True)
    wait_until(lambda: len(peer.told) == 2)


def paper(agent: Agent, study: Study) -> Path:
    return agent.node.store.folder / "receipts" / f"{study.digest[7:19]}.deletion.json"


class Killed(BaseException):
    """The process ends here."""


def killing(_study: str) -> list[None]:
    raise Killed


def test_what_a_cut_closing_deleted_is_on_the_receipt_of_the_next_start(
    start: Callable[[], Agent], approve: Approve, peer: Peer, pki: Pki
) -> None:
    agent = start()
    study = approve(agent, STUDY)
    assert code_of(peer, study) == ""
    (update,) = spooled(agent)
    agent.stop()
    closing = Closing(agent.node, (answers_closer(agent.node), killing))  # type: ignore[arg-type]
    with pytest.raises(Killed):
        closing.close(study.digest, "ines")
    assert not update.exists()
    assert not paper(agent, study).exists()
    peer.stop()  # the end needs no coordinator
    agent = start()
    receipt = open_signed(
        Signed.from_bytes(paper(agent, study).read_bytes()), DeletionReceipt, pki.signing.public
    )
    answers = [item for item in receipt.items if item.kind == "answer"]
    assert [item.digest for item in answers] == [f"sha256:{update.name}"]
    assert receipts(agent) == [Signed.from_bytes(paper(agent, study).read_bytes())]
    assert not paper(agent, study).with_suffix(".part").exists()


def test_a_thing_is_named_on_disk_before_it_goes(agent: Agent, frozen: Study) -> None:
    at_door(agent, "incident close", number=1)
    part = paper(agent, frozen).with_suffix(".part")

    def looking(_study: str) -> Iterator[Deleted]:
        yield Deleted(kind="cache", bytes=7)
        seen.append(part.read_text())

    seen: list[str] = []
    agent.closing._closers = (looking,)
    agent.closing.close(frozen.digest, "ines")
    assert '"cache"' in seen[0]


def test_a_receipt_whose_file_is_not_there_is_written_at_the_next_start(
    start: Callable[[], Agent], approve: Approve
) -> None:
    agent = start()
    study = approve(agent, STUDY)
    at_door(agent, "study close", study="tiny")
    before = paper(agent, study).read_bytes()
    agent.stop()
    paper(agent, study).unlink()  # killed after the receipt was kept, before it was written
    agent = start()
    assert paper(agent, study).read_bytes() == before


@given(
    st.lists(st.lists(st.sampled_from([Deleted(kind="payload", bytes=n) for n in range(3)]))),
    st.integers(0, 60),
)
def test_however_often_a_closing_is_cut_each_thing_is_on_the_receipt_once(
    runs: list[list[Deleted]], torn: int
) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "receipts" / "1.deletion.part"
        for run in runs:
            with Paper(Path(folder), "sha256:1").naming() as named:
                for item in run:
                    named.add(item)
                items = named.items
            with file.open("ab") as end:
                end.write(b'\n{"kind":"answer","bytes":123456,"digest":""}'[:torn][:40])
            expected = Counter(items)
            assert expected >= Counter(run)
        most = {item: max(run.count(item) for run in runs) for run in runs for item in run}
        assert not runs or Counter(items) == Counter(most)
