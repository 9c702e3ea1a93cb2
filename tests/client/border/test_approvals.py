"""Only what the right persons signed runs, and only as long as they want it to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from larrey_client.agent import Agent
from larrey_client.cases import Cases
from larrey_client.settings import SiteSettings
from larrey_client.stopping import stop
from larrey_client.store import SiteStore
from larrey_protocol.decisions import Approval
from larrey_protocol.errors import LarreyError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import phase_layout
from larrey_protocol.people import Person
from larrey_protocol.permit import Countersignature
from larrey_protocol.signed import Answer, Signed, open_signed, sign
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of, held, receipt_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import DOCUMENT, make_permit, make_roster
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study


def code(peer: Peer) -> str:
    return str(peer.request(peer.first_task(STUDY)).fields["code"])


def answers(peer: Peer, pki: Pki) -> list[Answer]:
    return [
        open_signed(Signed.from_bytes(data), Answer, pki.signing.public) for data in peer.answers
    ]


def test_half_of_the_signatures_approve_nothing(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    made = pki.people.approve(agent, STUDY, pki.people.it)
    assert (made["decision"], made["missing"]) == ("waiting", ["dpo"])
    assert code(peer) == "study-not-approved"
    assert agent.node.store.ledger_head.startswith("1:")  # registered, nothing held
    assert peer.answers == []


def test_one_person_twice_is_one_signature(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    for _ in range(2):
        made = pki.people.approve(agent, STUDY, pki.people.dpo)
        assert (made["decision"], made["missing"]) == ("waiting", ["it"])


def test_the_answer_binds_permit_and_seats_and_names_nobody(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    [answer] = answers(peer, pki)
    terms = agent.approving.terms(STUDY.digest, None)
    assert (answer.decision, answer.permit, answer.seats) == (
        "approved", terms["permit"], terms["seats"],
    )  # fmt: skip
    assert not any(name in peer.answers[0].decode() for name in ("ines", "dora"))
    receipt = receipt_of(peer.request(peer.first_task(STUDY)), pki)
    assert (receipt.permit, receipt.flags) == (terms["permit"], ())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"site": "beta"}, "approval-differs"),
        ({"person": "ines"}, "approval-differs"),
        ({"permit": "sha256:" + "0" * 64}, "approval-outdated"),
        ({"seats": "sha256:" + "0" * 64}, "approval-outdated"),
        ({"study": "sha256:" + "0" * 64}, "study-unknown"),
        ({"dataset": "lung"}, "dataset-unknown"),
    ],
)
def test_an_approval_of_anything_else_is_none(
    agent: Agent, pki: Pki, lawful: Approve, changes: dict[str, Any], expected: str
) -> None:
    lawful(agent, STUDY)
    signed = pki.people.approval(agent, STUDY, pki.people.dpo)
    word = open_signed(signed, Approval, pki.people.dpo.public).model_copy(update=changes)
    with pytest.raises(LarreyError) as refused:
        agent.approving.decide(sign(word, pki.people.dpo))
    assert refused.value.code == expected
    assert ("approval-signed", "") not in audit_of(agent)


def test_a_stranger_and_an_altered_signature_count_for_nothing(
    agent: Agent, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    with pytest.raises(LarreyError, match="person-unknown"):
        pki.people.approve(agent, STUDY, SigningKey.generate())
    signed = pki.people.approval(agent, STUDY, pki.people.dpo)
    forged = signed.model_copy(update={"document": signed.document.replace("dora", "dara")})
    with pytest.raises(LarreyError, match="bad-signature"):
        agent.approving.decide(forged)


def test_one_person_refuses_and_that_is_final(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    pki.people.approve(agent, STUDY, pki.people.it)
    pki.people.decide(agent, STUDY, pki.people.dpo, "refused")
    agent.desk.send_decisions()
    assert [(a.decision, a.code) for a in answers(peer, pki)] == [("refused", "refused-by-site")]
    with pytest.raises(LarreyError, match="already-decided"):
        pki.people.approve(agent, STUDY, pki.people.dpo)
    assert code(peer) == "study-not-approved"


def test_one_person_revokes_and_that_is_final(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    assert code(peer) == ""
    pki.people.decide(agent, STUDY, pki.people.it, "revoked")
    agent.desk.send_decisions()
    assert [a.decision for a in answers(peer, pki)] == ["approved", "revoked"]
    assert code(peer) == "approval-revoked"
    assert held(agent).is_closed
    assert held(agent).bound_units == held(agent).used_units > 0
    with pytest.raises(LarreyError, match="already-decided"):
        pki.people.approve(agent, STUDY, pki.people.dpo)


def test_only_what_was_approved_can_be_revoked(agent: Agent, pki: Pki, lawful: Approve) -> None:
    lawful(agent, STUDY)
    with pytest.raises(LarreyError, match="not-approved"):
        pki.people.decide(agent, STUDY, pki.people.dpo, "revoked")


def test_an_update_that_was_training_when_it_was_revoked_does_not_leave(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.release.clear()
    peer.send(task)
    assert trainer.entered.wait(5)
    pki.people.decide(agent, STUDY, pki.people.dpo, "revoked")
    trainer.release.set()
    wait_until(lambda: bool(peer.given))
    assert peer.given[0].fields["code"] in {"approval-revoked", "trainer-stopped"}
    assert peer.uploads == {}
    assert held(agent).rounds_used == 1  # what was reserved stays reserved


@pytest.mark.parametrize(
    ("word", "expected"), [("revoke", "approval-revoked"), ("halt", "site-not-ready")]
)
def test_an_update_that_was_ready_when_it_was_stopped_does_not_leave(
    agent: Agent,
    peer: Peer,
    pki: Pki,
    approve: Approve,
    trainer: SmallTrainer,
    word: str,
    expected: str,
) -> None:
    approve(agent, STUDY)
    layout = phase_layout(STUDY, "train")

    def ready(_: Study) -> bytes:  # the trainer is done: nothing is left to interrupt
        if word == "revoke":
            pki.people.decide(agent, STUDY, pki.people.dpo, "revoked")
        else:
            stop(agent.node.store, "halt", "", "ines")
        return pack(layout, np.zeros(layout.size, np.float32))

    trainer.make = ready
    assert code(peer) == expected
    assert peer.uploads == {}
    assert held(agent).rounds_used == 1


def test_an_approved_study_waits_for_its_launch(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    lawful(agent, STUDY)
    for key in (pki.people.it, pki.people.dpo):
        pki.people.approve(agent, STUDY, key)
    assert code(peer) == "not-launched"
    pki.people.launch(agent, STUDY, SigningKey.generate())  # of nobody on the roster
    assert code(peer) == "not-launched"
    pki.people.launch(agent, STUDY, pki.consortium)
    assert code(peer) == ""


def test_who_approved_it_here_does_not_launch_it(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    peer.permits.append(_permit(pki))
    lawful(agent, STUDY)
    for key in (pki.people.it, pki.people.dpo):
        pki.people.approve(agent, STUDY, key)
    _enlist_officer(agent, peer, pki)
    pki.people.launch(agent, STUDY, pki.people.dpo)
    assert code(peer) == "duties-not-separate"


def test_who_is_on_the_consortiums_roster_does_not_approve_here(
    agent: Agent, peer: Peer, pki: Pki, lawful: Approve
) -> None:
    peer.permits.append(_permit(pki))
    lawful(agent, STUDY)
    _enlist_officer(agent, peer, pki)
    with pytest.raises(Refusal, match="duties-not-separate"):
        pki.people.approve(agent, STUDY, pki.people.dpo)


def _enlist_officer(agent: Agent, peer: Peer, pki: Pki) -> None:
    """Have the hospital's officer on the consortium's next roster as a lead."""
    both = Person(name="ada", role="lead", key=pki.people.dpo.public)
    roster = make_roster(pki.signing.public, both, version=2)
    peer.tell(rosters=sign(roster, pki.consortium).to_bytes())
    wait_until(lambda: agent.node.cases.dossier.roster.version == 2)


def _permit(pki: Pki) -> bytes:
    return sign(make_permit(), pki.consortium).to_bytes()


@pytest.mark.parametrize("kind", ["approval", "permit", "roster", "countersignature", "order"])
def test_one_byte_changed_in_a_kept_document_refuses_everything(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, kind: str
) -> None:
    approve(agent, STUDY)
    assert code(peer) == ""
    tamper(agent, f"UPDATE documents SET signed = {_one_byte()} WHERE kind = '{kind}'")
    assert code(peer) == "document-altered"
    assert code(peer) == "document-altered"  # the node still serves


def test_one_byte_changed_in_a_kept_proposal_refuses_it(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    approve(agent, STUDY)
    tamper(agent, f"UPDATE proposals SET signed = {_one_byte()}")
    assert code(peer) == "document-altered"


def test_a_kept_proposal_of_another_study_refuses_it(
    agent: Agent, peer: Peer, approve: Approve, lawful: Approve
) -> None:
    approve(agent, STUDY)
    lawful(agent, make_study(study__name="other", training__learning_rate=0.5))
    tamper(
        agent, "UPDATE proposals SET signed = (SELECT signed FROM proposals ORDER BY rowid DESC)"
    )
    assert code(peer) == "document-altered"


def test_a_countersignature_that_is_not_the_officer_s_counts_for_nothing(
    agent: Agent, peer: Peer, pki: Pki
) -> None:
    peer.tell(permits=_permit(pki))
    wait_until(lambda: bool(agent.node.cases.dossier.permits))
    digest = agent.node.cases.dossier.permit("test/1")[0]
    for key, is_enough in ((pki.people.it, False), (pki.people.dpo, True)):
        word = Countersignature(
            permit=digest, document=DOCUMENT, site="alpha", person=pki.people.name(key), at=1.0
        )
        with agent.node.store.transaction():
            agent.node.store.add_document(sign(word, key), subject=digest)
        assert (digest in agent.node.cases.dossier.countersigned) == is_enough


def test_a_revocation_that_is_deleted_does_not_come_back_as_an_approval(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    pki.people.decide(agent, STUDY, pki.people.dpo, "revoked")
    tamper(agent, "DELETE FROM documents WHERE kind = 'approval' AND number = 3")
    assert code(peer) == "document-altered"


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM stops",
        "UPDATE stops SET verb = 'pause'",
        "UPDATE stops SET study = 'sha256:0'",
        "INSERT INTO stops SELECT seq + 1, study, 'resume', actor, at FROM stops",
    ],
)
def test_a_halt_that_is_taken_out_of_the_database_still_refuses(
    agent: Agent, peer: Peer, approve: Approve, change: str
) -> None:
    approve(agent, STUDY)
    stop(agent.node.store, "halt", "", "ines")
    assert code(peer) == "site-not-ready"
    tamper(agent, change)
    assert code(peer) == "document-altered"


def test_a_clock_set_back_refuses_until_it_is_right(
    settings: SiteSettings, start: Callable[[], Agent], peer: Peer, approve: Approve
) -> None:
    agent = start()
    approve(agent, STUDY)
    agent.stop()
    agent.node.store.close()
    ahead = SiteStore.open(settings.site.state, lambda: time.time() + 400)
    with ahead.transaction():
        ahead.audit("later", "alpha")
    ahead.close()
    start()
    assert code(peer) == "clock-set-back"


def test_a_permit_is_judged_by_the_later_of_clock_and_records(
    agent: Agent, settings: SiteSettings, approve: Approve
) -> None:
    approve(agent, STUDY)
    asleep = Cases(settings, agent.node.store, lambda: 0.0)
    assert asleep.today == agent.node.cases.today
    tomorrow = Cases(settings, agent.node.store, lambda: time.time() + 86400)
    assert (tomorrow.today - asleep.today).days == 1


def _one_byte() -> str:
    """Return SQL that changes the last digit of a document's signature."""
    half = "length(signed) - 8"
    return (
        f"CAST(substr(signed, 1, {half}) || CASE substr(signed, {half} + 1, 1) WHEN X'41'"
        f" THEN 'B' ELSE 'A' END || substr(signed, {half} + 2) AS BLOB)"
    )


def tamper(agent: Agent, statement: str) -> None:
    """Change the database as somebody with the node's account could."""
    path = agent.node.store.folder / "site.db"
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    for table in ("documents", "proposals", "stops"):
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
    assert connection.execute(statement).rowcount
    connection.close()


def test_the_store_is_the_only_writer(settings: SiteSettings, agent: Agent) -> None:
    with pytest.raises(LarreyError, match="state-locked"):
        SiteStore.open(settings.site.state, time.time)
