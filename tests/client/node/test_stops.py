"""A site's own stops: from any terminal, durable, undone only by a person's order; close, leave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.closing import Closing, Past, why_close
from larrey_client.explain import explain_status
from larrey_client.local import ask
from larrey_client.orders import Standing
from larrey_client.settings import SiteSettings
from larrey_client.store import SiteStore
from larrey_protocol.decisions import DeletionReceipt, Departure, SiteOrder
from larrey_protocol.errors import LarreyError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Answer, Signed, open_signed, sign
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import make_permit
from tests.client.node.trainers import SmallTrainer


@pytest.fixture
def running(agent: Agent, approve: Approve) -> Study:
    return approve(agent, STUDY)


def order(agent: Agent, pki: Pki, verb: str, **changes: Any) -> str:
    """Return ines's order over the trail as it is now."""
    key = changes.pop("key", pki.people.it)
    fields = {"site": "alpha", "verb": verb, "subject": "", "person": "ines", "at": 1.0}
    fields["after"] = agent.node.store.audit_head
    return sign(SiteOrder.model_validate(fields | changes), key).to_bytes().decode()


def at_door(agent: Agent, command: str, **arguments: Any) -> Any:
    return ask(agent.node.settings.site.state, command, **arguments)


def code_at_door(agent: Agent, command: str, **arguments: Any) -> str:
    with pytest.raises(LarreyError) as caught:
        at_door(agent, command, **arguments)
    return caught.value.code


def code_of(peer: Peer, study: Study, number: int = 1) -> str:
    return str(peer.request(peer.first_task(study, number)).fields["code"])


@pytest.mark.parametrize("which", ["", "tiny"])
def test_a_halt_ends_a_running_training_in_less_than_a_second(
    agent: Agent, running: Study, peer: Peer, trainer: SmallTrainer, which: str
) -> None:
    trainer.release.clear()
    peer.send(peer.first_task(running))
    assert trainer.entered.wait(5)
    begun = time.monotonic()
    at_door(agent, "halt", study=which)
    wait_until(lambda: peer.given)
    assert time.monotonic() - begun < 1.0
    assert (peer.given[0].fields["code"], peer.given[0].receipt) == ("site-not-ready", b"")


def test_a_halt_leaves_another_studys_training_alone(
    agent: Agent, running: Study, trainer: SmallTrainer
) -> None:
    assert code_at_door(agent, "halt", study="another") == "study-unknown"
    assert trainer.interrupted == []


def test_a_halted_site_refuses_until_a_person_resumes_it_and_what_was_spent_stays(
    agent: Agent, running: Study, peer: Peer, pki: Pki
) -> None:
    assert code_of(peer, running) == ""
    at_door(agent, "halt")
    assert code_of(peer, running, 2) == "site-not-ready"
    assert code_of(peer, running) == "site-not-ready"  # nor is a stored answer sent
    assert at_door(agent, "resume", signed=order(agent, pki, "resume"))["undone"] == "halted"
    assert code_of(peer, running) == ""
    assert code_of(peer, running, 2) == ""


def test_a_pause_lets_the_present_work_finish_and_refuses_the_next(
    agent: Agent, running: Study, peer: Peer, trainer: SmallTrainer
) -> None:
    trainer.release.clear()
    peer.send(peer.first_task(running))
    assert trainer.entered.wait(5)
    at_door(agent, "pause", study="tiny")
    trainer.release.set()
    wait_until(lambda: peer.given)
    assert (peer.given[0].fields["code"], trainer.interrupted) == ("", [])
    assert code_of(peer, running, 2) == "site-not-ready"


def test_a_halt_survives_a_restart(
    start: Callable[[], Agent], approve: Approve, peer: Peer, trainer: SmallTrainer
) -> None:
    agent = start()
    study = approve(agent, STUDY)
    at_door(agent, "halt", study=study.digest)
    agent = start()
    assert code_of(peer, study) == "site-not-ready"
    status = at_door(agent, "status")
    assert status["stopped"][0]["stopped"] == "halted"
    assert "halted" in explain_status(status)
    assert trainer.trained == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": SigningKey.generate()}, "person-unknown"),
        ({"person": "dora"}, "order-differs"),
        ({"site": "beta"}, "order-differs"),
        ({"verb": "adopt"}, "order-differs"),
        ({"after": "1:sha256:" + "0" * 64}, "order-differs"),
        ({"after": "999:sha256:" + "0" * 64}, "order-differs"),
    ],
)
def test_a_forged_order_resumes_nothing(
    agent: Agent, running: Study, peer: Peer, pki: Pki, changes: dict[str, Any], code: str
) -> None:
    at_door(agent, "halt")
    verb = changes.pop("verb", "resume")
    assert code_at_door(agent, "resume", signed=order(agent, pki, verb, **changes)) == code
    assert code_of(peer, running) == "site-not-ready"


def test_an_order_signed_before_the_halt_or_used_before_resumes_nothing(
    agent: Agent, running: Study, pki: Pki
) -> None:
    early = order(agent, pki, "resume")
    at_door(agent, "halt")
    assert code_at_door(agent, "resume", signed=early) == "order-differs"
    now = order(agent, pki, "resume")
    at_door(agent, "resume", signed=now)
    assert code_at_door(agent, "resume", signed=now) == "nothing-to-resume"
    at_door(agent, "halt")
    assert code_at_door(agent, "resume", signed=now) == "order-differs"


def test_without_a_node_a_halt_is_written_and_a_key_resumes_it(
    settings: SiteSettings, site_file: Path, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    key = site_file.parent / "ines.key"
    pki.people.it.save(key)
    config = ["--config", str(site_file), "--json"]
    assert main(["halt", *config]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == "all"
    assert main(["resume", "--key", str(key), *config]) == 0
    assert json.loads(capsys.readouterr().out)["undone"] == "halted"
    assert main(["resume", "--key", str(key), *config]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "nothing-to-resume"
    store = SiteStore.open(settings.site.state, time.time)
    actions = [record.action for record in store.records.audit()]
    store.close()
    assert actions[-2:] == ["site-halt", "site-resume"]


def test_closing_deletes_the_answers_and_tells_with_a_signed_receipt(
    agent: Agent, running: Study, peer: Peer, pki: Pki, trainer: SmallTrainer
) -> None:
    for number in (1, 2):
        assert code_of(peer, running, number) == ""
    spool = agent.node.store.spool
    assert list(spool.iterdir())
    done = at_door(agent, "study close", study="tiny")
    assert list(spool.iterdir()) == []
    assert trainer.interrupted == [running.digest]
    signed = Signed.from_bytes(Path(done["receipt"]).read_bytes())
    receipt = open_signed(signed, DeletionReceipt, pki.signing.public)
    assert (receipt.by, receipt.study) == ("alpha", running.digest)
    assert "answer" in {item.kind for item in receipt.items}
    wait_until(lambda: peer.told == [signed.to_bytes()])
    assert code_of(peer, running, 3) == "study-closed"
    assert code_at_door(agent, "study close", study="tiny") == "already-closed"


def test_closing_keeps_ledger_receipts_and_trail(
    start: Callable[[], Agent], approve: Approve, peer: Peer
) -> None:
    agent = start()
    study = approve(agent, STUDY)
    assert code_of(peer, study) == ""
    at_door(agent, "study close", study="tiny")
    agent = start()  # verifies every chain, and every head in the receipts
    with agent.node.store.reading() as records:
        assert len(records.answers(study.digest)) == 1
    wait_until(lambda: len(peer.told) == 1)
    assert at_door(agent, "audit verify")["is_intact"]


def test_an_order_to_close_closes_at_once(
    agent: Agent, running: Study, peer: Peer, pki: Pki
) -> None:
    pki.people.order(agent, running, pki.consortium, verb="close")
    peer.order()
    wait_until(lambda: peer.told)
    assert ("study-deleted", "closed-by-order") in audit_of(agent)


def test_a_closing_that_a_kill_cut_is_finished_at_the_next_start(
    start: Callable[[], Agent], approve: Approve, peer: Peer
) -> None:
    agent = start()
    study = approve(agent, STUDY)
    assert code_of(peer, study) == ""
    agent.closing._stop_for_good(study.digest, "root", "")
    assert code_of(peer, study, 2) != ""
    agent = start()
    wait_until(lambda: len(peer.told) == 1)
    assert list(agent.node.store.spool.iterdir()) == []


_PERMIT = make_permit()
_LAST = _PERMIT.use.valid_until


def past(**changes: Any) -> Past:
    fields = {"standing": Standing(), "permit": _PERMIT, "day": _LAST, "ended_s": None}
    return Past(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (past(), ""),
        (past(day=_LAST.replace(year=_LAST.year + 1)), "permit-ended"),
        (past(permit=make_permit(permit__state="REVOKED")), "permit-ended"),
        (past(permit=None, ended_s=0.0), ""),
        (past(ended_s=29.9 * 86400), ""),
        (past(ended_s=30.0 * 86400), "ended-long-ago"),
        (past(standing=Standing(stopped="halted")), ""),
        (past(standing=Standing(stopped="closed")), "closed-by-order"),
        (past(standing=Standing(stopped="withdrawn")), "closed-by-order"),
        (past(is_begun=True), "closing-begun"),
        (past(has_left=True), "site-left"),
        (past(standing=Standing(is_closed=True), is_begun=True), "closing-begun"),
        (past(is_deleted=True, is_begun=True, ended_s=1e9), ""),
    ],
)
def test_when_a_study_is_closed_by_itself(case: Past, code: str) -> None:
    assert why_close(case, 30.0) == code


def test_a_policy_that_nobody_signed_deletes_nothing(
    agent: Agent, running: Study, peer: Peer
) -> None:
    peer.end(running.digest)
    wait_until(lambda: ("study-ended", "") in audit_of(agent))
    settings = agent.node.settings
    hasty = settings.policy.model_copy(update={"close_after_days": 0.0})
    node = replace(agent.node, settings=settings.model_copy(update={"policy": hasty}))
    assert Closing(node, ()).due() == []


def test_leaving_revokes_and_closes_everything_and_the_node_asks_no_more(
    start: Callable[[], Agent], approve: Approve, peer: Peer, pki: Pki
) -> None:
    agent = start()
    study = approve(agent, STUDY)
    assert code_of(peer, study) == ""
    done = at_door(agent, "leave", signed=order(agent, pki, "leave"))
    assert done["closed"] == 1
    wait_until(lambda: len(peer.told) == 2)
    key = pki.signing.public
    departure = open_signed(Signed.from_bytes(peer.told[-1]), Departure, key)
    assert departure.site == "alpha"
    answer = open_signed(Signed.from_bytes(peer.answers[-1]), Answer, key)
    assert (answer.study, answer.decision) == (study.digest, "revoked")
    wait_until(lambda: not agent._threads[0].is_alive())
    with pytest.raises(Refusal, match="site-left"):
        start()


def test_only_a_person_of_the_site_makes_it_leave(agent: Agent, running: Study, pki: Pki) -> None:
    forged = order(agent, pki, "leave", key=SigningKey.generate())
    assert code_at_door(agent, "leave", signed=forged) == "person-unknown"
    resume = order(agent, pki, "resume")
    assert code_at_door(agent, "leave", signed=resume) == "order-differs"
    elsewhere = order(agent, pki, "leave", after="1:sha256:" + "0" * 64)  # of another trail
    assert code_at_door(agent, "leave", signed=elsewhere) == "order-differs"
    with agent.node.store.reading() as records:
        assert records.documents("departure") == []
