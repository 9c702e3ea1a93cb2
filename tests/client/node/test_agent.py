"""A node does one round with a coordinator that the test plays."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from larrey_client.agent import Agent
from larrey_client.cost import round_mechanism
from larrey_client.epsilons import EpsilonTable
from larrey_client.settings import SiteSettings
from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.certificates import Credential, issue_client, make_authority
from larrey_protocol.errors import DataError, LarreyError
from larrey_protocol.models import model_layout
from larrey_protocol.signed import Proposal, sign
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of, held, receipt_of
from tests.client.node.peer import Peer, wait_until, wrap
from tests.client.node.trainers import SmallTrainer


def test_a_round_reserves_trains_signs_and_hands_over(
    agent: Agent, peer: Peer, approve: Approve, pki: Pki
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    given = peer.request(task)
    assert given.fields["code"] == ""
    assert digest_bytes(peer.uploads[given.fields["update"]]) == given.fields["update"]
    receipt = receipt_of(given, pki)
    assert (receipt.round, receipt.model_in, receipt.update) == (
        1,
        task.model,
        given.fields["update"],
    )
    assert receipt.peer_head == task.peer_head
    assert 0 < receipt.epsilon < 3.0
    assert held(agent).rounds_used == 1
    assert [action for action, _ in audit_of(agent)] == [
        *["policy-signed"] * 2,
        "roster-received",
        "permit-received",
        "study-proposed",
        "permit-countersigned",
        "dataset-registered",
        *["approval-signed"] * 2,
        "study-approved",
        "round-reserved",
        "update-released",
    ]


def test_the_trainer_is_told_the_entry_that_pays_for_the_round(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    peer.request(peer.first_task(approve(agent, STUDY)))
    assert trainer.trained[0].sequence == held(agent).reservations[0].entry.seq > 0


def test_the_reply_answers_the_flower_message_it_got(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    given = peer.request(peer.first_task(approve(agent, STUDY)))
    assert given.message.metadata.reply_to_message_id != ""
    assert (given.message.metadata.src_node_id, given.message.metadata.dst_node_id) == (77, 1)


def test_a_receipt_states_the_epsilon_of_the_rounds_reserved(
    agent: Agent, peer: Peer, approve: Approve, pki: Pki
) -> None:
    approve(agent, STUDY)
    wait_until(lambda: agent.node.epsilons.is_complete(STUDY), timeout_s=60)
    one = round_mechanism(STUDY)
    assert isinstance(one, Mechanism)
    for number in (1, 2):
        given = peer.request(peer.first_task(STUDY, number))
        assert receipt_of(given, pki).epsilon == epsilon_pld(one.over(number), 1e-5)


def test_a_receipt_states_an_upper_bound_until_the_figure_is_there() -> None:
    table = EpsilonTable()
    table.stop()
    assert table.at(STUDY, 1, ceiling=2.5) == 2.5
    table.prepare(STUDY)
    table._known[STUDY.digest] |= {2: 1.5, 3: 2.0}
    assert [table.at(STUDY, n, ceiling=2.5) for n in (1, 2, 3, 4)] == [1.5, 1.5, 2.0, 2.5]


def test_a_repeated_request_gets_identical_bytes_and_no_ledger_entry(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    first = peer.request(task)
    head = agent.node.store.ledger_head
    second = peer.request(task, attempt=2)
    assert (second.receipt, second.fields["update"]) == (first.receipt, first.fields["update"])
    assert second.fields["attempt"] == 2
    assert agent.node.store.ledger_head == head
    assert len(trainer.trained) == 1


def test_a_repeated_request_is_answered_after_a_restart(
    start: Callable[[], Agent], peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(start(), STUDY))
    first = peer.request(task)
    peer.uploads.clear()
    start()
    second = peer.request(task)
    assert second.receipt == first.receipt
    assert first.fields["update"] in peer.uploads
    assert len(trainer.trained) == 1


def test_a_later_round_settles_the_one_before_and_drops_its_blob(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    approve(agent, STUDY)
    first = peer.first_task(STUDY, 1)
    peer.request(first)
    peer.request(peer.first_task(STUDY, 2))
    assert [r.is_settled for r in held(agent).reservations] == [True, False]
    assert len(list(agent.node.store.spool.iterdir())) == 1
    assert peer.request(first).fields["code"] == "answer-expired"


def test_a_round_makes_two_durable_commits(agent: Agent, peer: Peer, approve: Approve) -> None:
    approve(agent, STUDY)
    statements: list[str] = []
    connection = agent.node.store.records.connection
    connection.set_trace_callback(statements.append)
    peer.request(peer.first_task(STUDY, 1))
    peer.request(peer.first_task(STUDY, 2))
    connection.set_trace_callback(None)
    assert statements.count("COMMIT") == 4


def test_a_study_nobody_approved_is_not_trained(agent: Agent, peer: Peer, pki: Pki) -> None:
    peer.propose(sign(Proposal(study=STUDY, proposed_at=1.0), pki.consortium).to_bytes())
    given = peer.request(peer.first_task(STUDY))
    assert (given.fields["code"], given.fields["update"]) == ("study-not-approved", "")
    assert given.receipt == b""
    assert ("request-refused", "study-not-approved") in audit_of(agent)


def test_altered_model_bytes_are_refused_and_nothing_is_spent(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    data = bytearray(peer.blobs[task.model])
    data[-1] ^= 1
    peer.blobs[task.model] = bytes(data)
    assert peer.request(task).fields["code"] == "model-altered"
    assert held(agent).rounds_used == 0


@pytest.mark.parametrize("extra", [b"", b"x" * 100])
def test_a_model_that_is_not_the_study_s_is_refused(
    agent: Agent, peer: Peer, approve: Approve, extra: bytes
) -> None:
    layout = model_layout(approve(agent, STUDY))
    bad = pack(layout, np.full(layout.size, np.nan, np.float32)) + extra
    task = replace(peer.first_task(STUDY), model=digest_bytes(bad))
    peer.blobs[task.model] = bad
    expected = "model-altered" if extra else "model-not-finite"
    assert peer.request(task).fields["code"] == expected
    assert held(agent).rounds_used == 0


def test_cut_transfers_resume_where_they_were_cut(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    peer.cuts = 2
    given = peer.request(task)
    assert given.fields["code"] == ""
    assert peer.fetch_offsets[0] == 0
    assert 0 < peer.fetch_offsets[1] <= peer.fetch_offsets[2] < task.model_bytes


def test_a_cut_upload_resumes_where_it_was_cut(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.release.clear()
    peer.send(task)
    trainer.entered.wait(5)
    peer.cuts = 1
    trainer.release.set()
    wait_until(lambda: bool(peer.given))
    assert peer.store_offsets[0] == 0
    assert peer.store_offsets[1] == task.model_bytes // 2


def test_an_upload_displaced_by_another_of_the_same_bytes_is_offered_again(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.release.clear()
    peer.send(task)
    trainer.entered.wait(5)
    peer.supersedes = 1
    trainer.release.set()
    wait_until(lambda: bool(peer.given))
    assert peer.given[0].fields["code"] == ""
    assert peer.store_offsets == [0, 0]


def test_a_failure_of_the_trainer_is_sent_as_a_code_and_the_node_goes_on(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.fail = LarreyError("trainer-crashed", "patient Ann has value 3")
    given = peer.request(task)
    assert given.fields["code"] == "trainer-crashed"
    assert "Ann" not in str(given.fields)
    trainer.fail = None
    assert peer.request(task).fields["code"] == ""
    assert held(agent).rounds_used == 2  # a spare round paid for the crash


def test_an_unforeseen_error_is_one_code_and_the_node_goes_on(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))

    def explode(_: Study) -> bytes:
        raise ZeroDivisionError("private text")

    trainer.make = explode
    assert peer.request(task).fields["code"] == "node-failed"
    trainer.make = None
    assert peer.request(task).fields["code"] == ""


def test_what_is_wrong_with_the_data_stays_at_the_site(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.load_fail = DataError("value-outside-range", "row 3: age 999")
    assert peer.request(task).fields["code"] == "site-not-ready"
    assert held(agent).rounds_used == 0


def test_the_number_of_patients_does_not_show_in_a_code(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.units = 19  # under the minimum, since the approval
    assert peer.request(task).fields["code"] == "site-not-ready"
    assert held(agent).rounds_used == 0


def test_a_deadline_that_passes_while_data_load_spends_nothing(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    trainer.load_s = 0.3
    late = replace(task, deadline_s=0.2)
    assert peer.request(late).fields["code"] == "deadline-passed"
    assert held(agent).rounds_used == 0


def test_an_update_over_its_norm_bound_does_not_leave(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    layout = model_layout(STUDY)
    trainer.make = lambda _: pack(layout, np.full(layout.size, 1e6, np.float32))
    assert peer.request(task).fields["code"] == "update-over-norm"
    assert not peer.uploads


def test_an_update_that_could_still_change_does_not_leave(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    trainer.is_sealed = False
    task = peer.first_task(approve(agent, STUDY))
    assert peer.request(task).fields["code"] == "update-malformed"


def test_a_request_that_cannot_be_read_gets_a_code(agent: Agent, peer: Peer) -> None:
    peer.push(wrap({"study": "x"}))
    wait_until(lambda: bool(peer.given))
    assert peer.given[0].fields == {"update": "", "code": "request-malformed"}


def test_a_stop_between_reserve_and_commit_keeps_the_reservation(
    start: Callable[[], Agent], peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    agent = start()
    task = peer.first_task(approve(agent, STUDY))
    trainer.release.clear()
    trainer.fail = LarreyError("trainer-crashed", "killed")
    peer.send(task)
    assert trainer.entered.wait(5)
    again = start()  # stops the first one, as a kill would
    assert not peer.given
    assert [r.output_digest for r in held(again).reservations] == [""]
    trainer.fail = None
    assert peer.request(task).fields["code"] == ""
    assert held(again).rounds_used == 2


def test_an_ended_study_gives_its_spare_rounds_back(
    agent: Agent, peer: Peer, approve: Approve
) -> None:
    peer.request(peer.first_task(approve(agent, STUDY)))
    peer.end(STUDY.digest)
    wait_until(lambda: held(agent).is_closed)
    assert held(agent).bound_units == held(agent).used_units
    assert peer.request(peer.first_task(STUDY, 2)).fields["code"] == "study-closed"


def test_the_node_finds_a_coordinator_that_comes_back(
    agent: Agent, peer: Peer, approve: Approve, pki: Pki
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    peer.stop()
    wait_until(lambda: agent.trouble == "coordinator-unreachable")
    assert not agent.is_connected
    peer.start(pki.server, pki.authority.certificate)
    assert peer.request(task).fields["code"] == ""
    assert agent.is_connected


@pytest.fixture
def foreign() -> Credential:
    return make_authority("somebody else", now=dt.datetime.now(dt.UTC))


def test_a_coordinator_under_a_foreign_authority_is_not_trusted(
    settings: SiteSettings, start: Callable[[], Agent], foreign: Credential
) -> None:
    settings.coordinator.authority.write_bytes(foreign.certificate)
    agent = start()
    wait_until(lambda: agent.trouble == "coordinator-untrusted")


def test_a_refused_certificate_has_its_own_code(
    settings: SiteSettings, start: Callable[[], Agent], foreign: Credential
) -> None:
    ours = issue_client(foreign, "alpha", now=dt.datetime.now(dt.UTC))
    settings.identity.certificate.write_bytes(ours.certificate)
    settings.identity.key.write_bytes(ours.key)
    agent = start()
    wait_until(lambda: agent.trouble == "coordinator-closed")


def test_stopping_while_it_trains_takes_less_than_two_seconds(
    start: Callable[[], Agent], peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    agent = start()
    task = peer.first_task(approve(agent, STUDY))
    trainer.release.clear()
    peer.send(task)
    assert trainer.entered.wait(5)
    began = time.monotonic()
    agent.stop()
    assert time.monotonic() - began < 2.0
    assert not [thread for thread in agent._threads if thread.is_alive()]
