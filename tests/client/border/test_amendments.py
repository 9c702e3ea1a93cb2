"""A new version of a study: sites see and sign only the difference, and patience needs none."""

from __future__ import annotations

from typing import Any

import pytest

from larrey_client.agent import Agent
from larrey_client.explain import explain_study
from larrey_client.holding import held
from larrey_client.settings import SiteSettings
from larrey_client.views import study_view
from larrey_privacy.ledger import Hold
from larrey_protocol.errors import LarreyError
from larrey_protocol.signed import Answer, Signed, open_signed, sign
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki
from tests.client.node.facts import Approve, audit_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import make_permit
from tests.protocol.samples import study as make_study

PARENT = make_study()


def child(parent: Study = PARENT, **changes: Any) -> Study:
    version = parent.file.study.version + 1
    head = {"study__version": version, "study__parent": parent.digest}
    return make_study(**{**head, **changes})


def hold_of(agent: Agent, study: Study) -> Hold | None:
    return held(agent.node.store, "heart", study.digest)


def code(peer: Peer, study: Study, number: int = 1) -> str:
    return str(peer.request(peer.first_task(study, number)).fields["code"])


def text(agent: Agent, settings: SiteSettings, study: Study, **options: Any) -> str:
    view = study_view(agent.node.store.records.connection, settings, study.digest)
    return explain_study(view, **options)


def test_a_more_patient_version_goes_on_under_its_parents_approval(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve
) -> None:
    approve(agent, PARENT)
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    wait_until(lambda: ("approval-carried", "") in audit_of(agent))
    wait_until(lambda: len(peer.answers) == 2)
    answer = open_signed(Signed.from_bytes(peer.answers[-1]), Answer, pki.signing.public)
    assert (answer.study, answer.decision) == (patient.digest, "approved")
    before, after = hold_of(agent, PARENT), hold_of(agent, patient)
    assert before is not None
    assert after is not None
    assert (before.is_closed, after.is_closed, after.rounds_total) == (True, False, 4)
    assert code(peer, PARENT) == "study-superseded"
    assert code(peer, patient) == "not-launched"
    pki.people.launch(agent, patient, pki.consortium)
    assert code(peer, patient) == ""


def test_a_name_means_its_newest_version_to_read_and_none_to_stop(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve, settings: SiteSettings
) -> None:
    approve(agent, PARENT)
    longer = lawful(agent, child(training__learning_rate=0.5))
    assert agent.approving.terms("tiny", None)["study"] == longer.digest
    view = study_view(agent.node.store.records.connection, settings, "tiny")
    assert view["version"] == 2
    with pytest.raises(LarreyError, match="study-ambiguous"):
        agent.approving.terms("tiny", "")


def test_versions_together_take_no_more_rounds_than_were_approved(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve
) -> None:
    approve(agent, PARENT)
    for number in (1, 2, 3):
        assert code(peer, PARENT, number) == ""
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    wait_until(lambda: hold_of(agent, patient) is not None)
    pki.people.launch(agent, patient, pki.consortium)
    assert code(peer, patient, 1) == ""
    assert code(peer, patient, 2) == "budget-exhausted"
    account = agent.node.store.ledger.account("heart")
    assert account is not None
    assert sum(hold.rounds_used for hold in account.holds.values()) == 4


def test_when_nothing_is_left_persons_must_sign(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve, settings: SiteSettings
) -> None:
    approve(agent, PARENT)
    for number in (1, 2, 3, 4):
        assert code(peer, PARENT, number) == ""
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    assert hold_of(agent, patient) is None
    with agent.node.store.reading() as records:
        assert records.decision(patient.digest) is None
    assert "0 of 2 (it, dpo missing)" in text(agent, settings, patient)
    pki.people.launch(agent, patient, pki.consortium)
    assert code(peer, patient) == "not-held"


def test_any_other_change_needs_the_signatures_of_this_site(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve, settings: SiteSettings
) -> None:
    approve(agent, PARENT)
    longer = lawful(agent, child(training__learning_rate=0.5, rounds__deadline_s=60.0))
    assert code(peer, longer) == "study-not-approved"
    assert code(peer, PARENT) == ""  # which goes on until then
    shown = text(agent, settings, longer, is_full=False)
    assert "file.training.learning_rate: 1.0 -> 0.5" in shown
    assert "need the signatures of this site" in shown
    assert "Does it run?" not in shown
    assert "Does it run?" in text(agent, settings, longer, is_full=True)
    for key in (pki.people.it, pki.people.dpo):
        pki.people.approve(agent, longer, key)
    assert code(peer, PARENT, 2) == "study-superseded"
    before, after = hold_of(agent, PARENT), hold_of(agent, longer)
    assert before is not None
    assert after is not None
    assert (before.is_closed, before.rounds_used, after.rounds_total) == (True, 1, 4)


@pytest.mark.parametrize(
    "changes", [{"study__version": 3}, {"study__version": 1}, {"study__name": "other"}]
)
def test_what_does_not_follow_its_parent_is_refused(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve, changes: dict[str, Any]
) -> None:
    approve(agent, PARENT)
    lawful(agent, child(**changes))
    wait_until(lambda: len(peer.answers) == 2)
    answer = open_signed(Signed.from_bytes(peer.answers[-1]), Answer, pki.signing.public)
    assert (answer.decision, answer.code) == ("refused", "not-an-amendment")


@pytest.mark.parametrize("word", ["revoked", ""])
def test_no_approval_is_carried_over_that_does_not_stand(
    agent: Agent, pki: Pki, approve: Approve, lawful: Approve, word: str
) -> None:
    if word:
        approve(agent, PARENT)
        pki.people.decide(agent, PARENT, pki.people.dpo, word)
    else:
        lawful(agent, PARENT)
        pki.people.approve(agent, PARENT, pki.people.it)
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    assert hold_of(agent, patient) is None
    assert ("approval-carried", "") not in audit_of(agent)


def test_no_approval_is_carried_over_from_an_older_permit_or_an_ended_study(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve
) -> None:
    approve(agent, PARENT)
    newest = Signed.from_bytes(peer.permits[-1])
    head = make_permit().permit.model_copy(
        update={"version": 2, "state": "AMENDED", "previous": newest.digest}
    )
    amended = sign(make_permit().model_copy(update={"permit": head}), pki.consortium)
    peer.tell(permits=amended.to_bytes())
    wait_until(lambda: agent.node.cases.dossier.permit("test/1")[0] == amended.digest)
    pki.people.countersign(agent, "test/1")
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    assert code(peer, patient) in {"permit-changed", "not-held"}
    for key in (pki.people.it, pki.people.dpo):
        pki.people.approve(agent, PARENT, key)
    peer.end(PARENT.digest)
    wait_until(lambda: ("study-ended", "") in audit_of(agent))
    lawful(agent, child(rounds__deadline_s=90.0))
    assert ("approval-carried", "") not in audit_of(agent)


def test_a_version_that_was_carried_over_is_revoked_like_any_other(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve
) -> None:
    approve(agent, PARENT)
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    wait_until(lambda: hold_of(agent, patient) is not None)
    pki.people.decide(agent, patient, pki.people.it, "revoked")
    assert code(peer, patient) == "approval-revoked"
    again = lawful(agent, child(patient, rounds__deadline_s=90.0))
    assert hold_of(agent, again) is None
