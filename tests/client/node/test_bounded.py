"""What a coordinator sends holds the node no longer than a round, and no document another."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import asdict, replace
from types import ModuleType

import pytest

from larrey_client.agent import Agent
from larrey_client.consortium import Intake
from larrey_client.flower import Incoming, open_take
from larrey_client.order_intake import OrderIntake
from larrey_client.run import open_node
from larrey_client.settings import AppRule, SiteSettings
from larrey_client.task import Task
from larrey_client.work import Worker
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.decisions import Order
from larrey_protocol.errors import TransportError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Proposal, sign
from tests.client.node.conftest import Pki, knows
from tests.client.node.facts import STUDY, Approve, held
from tests.client.node.peer import Peer, wait_until, wrap
from tests.client.node.people import make_permit, make_roster
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

WEEK_S = 7 * 86400.0
LONGEST_S = STUDY.file.rounds.deadline_s


def taken(task: Task) -> Incoming:
    incoming = open_take(wrap(asdict(task)))
    assert incoming is not None
    return incoming


@pytest.mark.parametrize(
    ("age_s", "code"), [(LONGEST_S - 20.0, ""), (LONGEST_S + 0.1, "deadline-passed")]
)
def test_a_request_is_due_when_the_approved_study_says_whatever_it_says_itself(
    agent: Agent, peer: Peer, approve: Approve, age_s: float, code: str
) -> None:
    task = replace(peer.first_task(approve(agent, STUDY)), deadline_s=WEEK_S)
    Worker(agent.node).answer(taken(task), agent.node.monotonic() - age_s)
    assert peer.given[0].fields["code"] == code


def test_a_request_that_gives_less_time_than_the_study_gets_less(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    task = replace(peer.first_task(approve(agent, STUDY)), deadline_s=1.0)
    Worker(agent.node).answer(taken(task), agent.node.monotonic() - 1.1)
    assert peer.given[0].fields["code"] == "deadline-passed"


def test_a_transfer_that_never_ends_is_given_up_by_the_study_s_own_deadline(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    task = replace(peer.first_task(approve(agent, STUDY)), deadline_s=WEEK_S)
    peer.cuts = 1 << 30
    begun = time.monotonic()
    with pytest.raises(TransportError):
        Worker(agent.node).answer(taken(task), agent.node.monotonic() - LONGEST_S + 0.4)
    assert time.monotonic() - begun < 3.0
    assert held(agent).rounds_used == 0


def odd() -> bytes:
    """Return what is no document at all, as no rule foresees it."""
    return None  # type: ignore[return-value]


def test_an_unforeseen_order_does_not_hide_the_halt_after_it(
    agent: Agent, approve: Approve, pki: Pki
) -> None:
    study, node = approve(agent, STUDY), agent.node
    fields = {"study": study.digest, "verb": "halt", "person": "ada", "number": 9, "at": 1.0}
    halt = sign(Order.model_validate(fields), pki.consortium).to_bytes()
    intake = OrderIntake(node.store, node.site)
    assert intake.take([odd(), halt], node.cases.dossier) == {study.digest}


def test_an_unforeseen_roster_does_not_hide_the_permit_after_it(agent: Agent, pki: Pki) -> None:
    intake = Intake(agent.node.store, pki.consortium.public)
    roster = sign(make_roster(SigningKey.generate().public), pki.consortium).to_bytes()
    permit = sign(make_permit(), pki.consortium).to_bytes()
    assert intake.take([odd(), roster], [odd(), permit])
    with agent.node.store.reading() as records:
        kept = [len(records.documents(kind)) for kind in ("roster", "permit")]
    assert kept == [1, 1]


def test_a_proposal_that_cannot_be_judged_does_not_stop_the_sync(
    settings: SiteSettings,
    trainer: SmallTrainer,
    pki: Pki,
    peer: Peer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "without_spec", ModuleType("without_spec"))
    rule = AppRule(name="odd", module="without_spec:app", digest=digest_bytes(b""))
    policy = settings.policy.model_copy(update={"apps": (rule,)})
    strange = make_study(training__app="odd", privacy={"mechanism": "none"})
    plain = make_study(study__name="second")
    signed = pki.people.sign_charter(settings.model_copy(update={"policy": policy}))
    with open_node(signed, lambda _: trainer, threading.Event()) as agent:
        proposals = (Proposal(study=study, proposed_at=1.0) for study in (strange, plain))
        peer.propose(*(sign(one, pki.consortium).to_bytes() for one in proposals))
        wait_until(lambda: knows(agent, plain))
        assert "a proposal failed in an unforeseen way" in caplog.text
        assert "could not deal with the coordinator's answer" not in caplog.text
