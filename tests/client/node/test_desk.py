"""Proposals and decisions at a hospital: what is kept, refused, approved and final."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from larrey_client.agent import Agent
from larrey_client.run import open_node
from larrey_client.settings import SiteSettings
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Answer, Proposal, Signed, open_signed, sign
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study


def test_a_proposal_the_consortium_did_not_sign_is_not_kept(agent: Agent, peer: Peer) -> None:
    forged = sign(Proposal(study=STUDY, proposed_at=1.0), SigningKey.generate())
    peer.propose(forged.to_bytes())
    wait_until(lambda: ("proposal-rejected", "wrong-signer") in audit_of(agent))
    with agent.node.store.reading() as records:
        assert records.known() == []


def test_a_tampered_proposal_is_not_kept(agent: Agent, peer: Peer, pki: Pki) -> None:
    signed = sign(Proposal(study=STUDY, proposed_at=1.0), pki.consortium)
    softer = signed.document.replace('"noise_multiplier":4.0', '"noise_multiplier":2.0')
    assert softer != signed.document
    peer.propose(signed.model_copy(update={"document": softer}).to_bytes())
    wait_until(lambda: ("proposal-rejected", "bad-signature") in audit_of(agent))


def test_policy_refuses_on_arrival_with_a_signed_answer(agent: Agent, peer: Peer, pki: Pki) -> None:
    weak = make_study(privacy__noise_multiplier=0.9)
    peer.propose(sign(Proposal(study=weak, proposed_at=1.0), pki.consortium).to_bytes())
    wait_until(lambda: bool(peer.answers))
    answer = open_signed(Signed.from_bytes(peer.answers[0]), Answer, pki.signing.public)
    assert (answer.decision, answer.code) == ("refused", "noise-below-minimum")
    assert agent.node.store.ledger_head.startswith("0:")


def test_an_approval_is_signed_sent_and_final(
    agent: Agent, peer: Peer, approve: Approve, pki: Pki
) -> None:
    approve(agent, STUDY)
    answer = open_signed(Signed.from_bytes(peer.answers[-1]), Answer, pki.signing.public)
    assert (answer.study, answer.decision) == (STUDY.digest, "approved")
    with pytest.raises(LarreyError, match="already-decided"):
        pki.people.decide(agent, STUDY, pki.people.it, "refused")


def test_a_budget_that_does_not_hold_all_rounds_is_refused_at_approval(
    settings: SiteSettings, approve: Approve, trainer: SmallTrainer, pki: Pki
) -> None:
    dataset = settings.datasets[0].model_copy(update={"epsilon": 0.5})
    poor = pki.people.sign_charter(settings.model_copy(update={"datasets": (dataset,)}))
    with open_node(poor, lambda _: trainer, threading.Event()) as agent:
        with pytest.raises(LarreyError, match="budget-exhausted"):
            approve(agent, STUDY)
        assert agent.node.store.ledger_head.startswith("1:")  # registered, nothing held


def test_too_few_patients_are_refused_at_approval(
    agent: Agent, approve: Approve, trainer: SmallTrainer
) -> None:
    trainer.units = 19
    with pytest.raises(LarreyError, match="units-below-minimum"):
        approve(agent, STUDY)


def test_a_later_study_cannot_count_other_units_than_patients(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    approve(agent, STUDY)
    unit = STUDY.contract.unit.model_copy(update={"column": "visit"})
    contract = STUDY.contract.model_copy(update={"unit": unit})
    by_visit = Study(file=make_study(study__version=2).file, contract=contract)
    with pytest.raises(LarreyError, match="unit-differs"):
        approve(agent, by_visit)


def test_a_study_is_refused_that_counts_other_units_than_the_site_says(
    settings: SiteSettings, approve: Approve, trainer: SmallTrainer, pki: Pki
) -> None:
    dataset = settings.datasets[0].model_copy(update={"unit": "patient_id"})
    strict = pki.people.sign_charter(settings.model_copy(update={"datasets": (dataset,)}))
    with open_node(strict, lambda _: trainer, threading.Event()) as agent:
        with pytest.raises(LarreyError, match="unit-differs"):
            approve(agent, STUDY)
        assert agent.node.store.ledger_head.startswith("1:")  # registered, nothing held


def test_a_study_that_ended_before_a_decision_takes_no_budget(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    peer.end(STUDY.digest)
    wait_until(lambda: ("study-ended", "") in audit_of(agent))
    with pytest.raises(LarreyError, match="study-ended"):
        pki.people.approve(agent, STUDY, pki.people.it)
    assert agent.node.store.ledger_head.startswith("1:")  # registered, nothing held


def test_a_node_does_not_start_behind_what_it_signed(
    start: Callable[[], Agent], peer: Peer, approve: Approve
) -> None:
    agent = start()
    peer.request(peer.first_task(approve(agent, STUDY)))
    connection = agent.node.store.records.connection
    connection.execute("DROP TRIGGER privacy_ledger_no_delete")
    connection.execute("DELETE FROM privacy_ledger WHERE seq > 2")
    with pytest.raises(LarreyError, match="ledger-behind"):
        start()
