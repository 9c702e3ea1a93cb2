"""What is kept counts for what it says itself: for this site alone, whatever stands beside it."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from larrey_client.agent import Agent
from larrey_client.data.opposition import Entry, append
from larrey_protocol.keys import SigningKey
from larrey_protocol.permit import Countersignature
from larrey_protocol.signed import Signed, sign
from tests.client.border.test_approvals import code, tamper
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve
from tests.client.node.peer import Peer
from tests.client.node.people import DOCUMENT, make_permit
from tests.client.node.trainers import SmallTrainer


def keep(agent: Agent, signed: Signed, subject: str, action: str) -> None:
    """Put a document among those that count here, as who holds the node's account could."""
    store = agent.node.store
    with store.transaction():
        store.add_document(signed, subject=subject, number=9)
        store.audit(action, "dora", subject=signed.digest)


def test_an_approval_for_another_node_of_the_same_officer_counts_for_nothing_here(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    pki.people.approve(agent, STUDY, pki.people.it)
    elsewhere = pki.people.approval(agent, STUDY, pki.people.dpo, site="beta")
    keep(agent, elsewhere, STUDY.digest, "approval-signed")
    assert code(peer) == "study-not-approved"
    given = agent.node.cases.dossier.approvals[STUDY.digest]
    assert [one.approval.site for one in given] == ["alpha"]


def test_a_countersignature_for_another_node_counts_for_nothing_here(
    agent: Agent, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    word = Countersignature(
        permit="sha256:" + "c" * 64, document=DOCUMENT, site="beta", person="dora", at=1.0
    )
    before = agent.node.cases.dossier.countersigned
    keep(agent, sign(word, pki.people.dpo), word.permit, "permit-countersigned")
    assert agent.node.cases.dossier.countersigned == before


@pytest.mark.parametrize("change", ["subject = 'sha256:0'", "number = 0"])
def test_a_halt_of_the_consortium_that_is_filed_elsewhere_still_refuses(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, change: str
) -> None:
    approve(agent, STUDY)
    for verb in ("resume", "halt"):
        pki.people.order(agent, STUDY, pki.consortium, verb=verb)
    tamper(agent, f"UPDATE documents SET {change} WHERE kind = 'order' AND number = 3")
    assert code(peer) == "study-halted"


def test_a_permit_that_nobody_entitled_signed_sets_no_objection_aside(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, trainer: SmallTrainer
) -> None:
    approve(agent, STUDY)
    forged = make_permit(permit__decided_on=dt.date(1990, 1, 1), permit__version=9)
    keep(agent, sign(forged, SigningKey.generate()), "test/1", "permit-received")
    state, today = agent.node.settings.site.state, dt.datetime.now(dt.UTC).date()
    append(state, [Entry(b"p" * 16, "oppose", today, time.time())])
    assert code(peer) == ""
    assert trainer.reading.excluded == {b"p" * 16}
