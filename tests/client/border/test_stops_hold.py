"""What a person stopped stays stopped: no new version and no finished training gets around it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from larrey_client.agent import Agent
from larrey_client.carrying import carry
from larrey_client.cost import round_mechanism
from larrey_client.exchange import CHUNK_BYTES, _parts
from larrey_client.holding import held
from larrey_client.local import account
from larrey_client.settings import SiteSettings
from larrey_client.stopping import stop
from larrey_client.store import SiteStore
from larrey_client.trainer_link import Loaded
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Proposal, sign
from larrey_protocol.study import Study
from tests.client.border.test_amendments import PARENT, child, code
from tests.client.node.conftest import Pki
from tests.client.node.facts import Approve, audit_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.trainers import SmallTrainer


@pytest.mark.parametrize("which", ["tiny", ""])
@pytest.mark.parametrize("verb", ["halt", "pause"])
def test_no_new_version_goes_on_with_what_this_site_stopped(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve, verb: str, which: str
) -> None:
    approve(agent, PARENT)
    stop(agent.node.store, "halt" if verb == "halt" else "pause", which, "ines")
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    pki.people.launch(agent, patient, pki.consortium)
    assert code(peer, patient) != ""
    assert held(agent.node.store, "heart", patient.digest) is None
    assert ("approval-carried", "") not in audit_of(agent)


@pytest.mark.parametrize("verb", ["halt", "close", "withdraw"])
def test_no_new_version_goes_on_by_itself_with_what_the_consortium_stopped(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve, verb: str
) -> None:
    approve(agent, PARENT)
    pki.people.order(agent, PARENT, pki.consortium, verb=verb, subject="alpha")
    patient = lawful(agent, child(rounds__deadline_s=60.0))
    assert code(peer, patient) == "not-launched"
    assert held(agent.node.store, "heart", patient.digest) is None


def test_persons_may_sign_the_new_version_of_what_they_stopped(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, lawful: Approve
) -> None:
    approve(agent, PARENT)
    stop(agent.node.store, "halt", "tiny", "ines")
    patient: Study = lawful(agent, child(rounds__deadline_s=60.0))
    for key in (pki.people.it, pki.people.dpo):
        pki.people.approve(agent, patient, key)
    pki.people.launch(agent, patient, pki.consortium)
    assert code(peer, patient) == ""


def test_a_round_reserved_while_a_version_is_carried_over_is_not_given_twice(
    agent: Agent, pki: Pki, approve: Approve
) -> None:
    approve(agent, PARENT)
    store, patient = agent.node.store, child(rounds__deadline_s=60.0)
    with store.transaction():
        signed = sign(Proposal(study=patient, proposed_at=1.0), pki.consortium)
        store.add_proposal(patient.digest, signed)
    rounds = iter([1])

    def clock() -> float:
        for number in rounds:  # a request is worked on just now
            with store.transaction():
                store.ledger.reserve("heart", PARENT.digest, number, "in", round_mechanism(PARENT))
        return time.time()

    made = carry(replace(agent.node, now=clock), patient)
    assert made is not None
    before, after = (held(store, "heart", one.digest) for one in (PARENT, patient))
    assert before is not None
    assert after is not None
    assert (before.rounds_used, after.rounds_total) == (1, 3)


def cut_after_training(agent: Agent, peer: Peer, trainer: SmallTrainer) -> None:
    """Have a finished update wait, since every transfer of it is cut."""
    trainer.release.clear()
    peer.send(peer.first_task(PARENT))
    assert trainer.entered.wait(5)
    peer.cuts = 1000
    trainer.release.set()
    wait_until(lambda: peer.store_offsets)


def test_an_update_that_waits_to_be_sent_does_not_leave_after_a_halt(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    approve(agent, PARENT)
    cut_after_training(agent, peer, trainer)
    stop(agent.node.store, "halt", "", "ines")
    peer.cuts = 0
    wait_until(lambda: peer.given)
    assert (peer.given[0].fields["code"], peer.given[0].receipt) == ("site-not-ready", b"")


def test_an_update_that_waits_to_be_sent_leaves_after_a_pause(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    approve(agent, PARENT)
    cut_after_training(agent, peer, trainer)
    stop(agent.node.store, "pause", "", "ines")
    peer.cuts = 0
    wait_until(lambda: peer.given)
    assert peer.given[0].fields["code"] == ""


def test_a_transfer_that_may_not_go_on_sends_no_further_part(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(bytes(3 * CHUNK_BYTES))
    answers = iter([True, False])
    parts = list(_parts("sha256:0", blob, 3 * CHUNK_BYTES, 0, lambda: next(answers)))
    assert [len(part.data) for part in parts] == [CHUNK_BYTES]


def test_a_study_that_ends_while_its_rows_are_read_holds_no_budget(
    agent: Agent, pki: Pki, lawful: Approve, trainer: SmallTrainer
) -> None:
    lawful(agent, PARENT)
    pki.people.approve(agent, PARENT, pki.people.it)
    store, load = agent.node.store, trainer.load

    def ending(*arguments: Any, **named: Any) -> Loaded:
        with store.transaction():
            store.add_ending(PARENT.digest)
        return load(*arguments, **named)

    trainer.load = ending  # type: ignore[method-assign]
    with pytest.raises(Refusal, match="study-ended"):
        pki.people.approve(agent, PARENT, pki.people.dpo)
    assert held(store, "heart", PARENT.digest) is None


def test_who_stopped_it_is_the_account_and_not_what_the_environment_claims(
    settings: SiteSettings, site_file: Path
) -> None:
    command = [sys.executable, "-m", "larrey_client.cli", "halt", "--config", str(site_file)]
    claimed = {"LOGNAME": "dora", "USER": "dora", "LNAME": "dora", "USERNAME": "dora"}
    subprocess.run(command, env={**os.environ, **claimed}, check=True, capture_output=True)
    store = SiteStore.open(settings.site.state, time.time)
    assert store.records.stops()[-1].actor == account() != "dora"
    store.close()
