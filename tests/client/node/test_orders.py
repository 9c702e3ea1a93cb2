"""How orders of the consortium arrive at a site, and how a study stands by them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from larrey_client.agent import Agent
from larrey_client.orders import KeptOrder, Standing, Stop, derive
from larrey_protocol.decisions import Order
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person
from larrey_protocol.signed import Signed, sign
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import make_roster
from tests.client.node.trainers import SmallTrainer

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
OTHER = SigningKey.generate()


def kept(*verbs: str, study: str = A) -> list[KeptOrder]:
    return [
        KeptOrder(_order(number, verb.partition(" ")[0], verb.partition(" ")[2], study), "key")
        for number, verb in enumerate(verbs, start=1)
    ]


def _order(number: int, verb: str, subject: str = "", study: str = A) -> Order:
    table = {"number": number, "verb": verb, "subject": subject, "person": "ada", "at": 1.0}
    return Order.model_validate({"study": study, **table})


def stops(*verbs: str, study: str = "") -> list[Stop]:
    return [Stop(n, study, verb, "root", 1.0) for n, verb in enumerate(verbs)]  # type: ignore[arg-type]


def stands(*verbs: str) -> Standing:
    return derive(A, kept(*verbs), (), site="alpha")


def test_a_launch_says_who_launched() -> None:
    assert stands("launch") == Standing(launched_by="ada", launched_key="key")


@pytest.mark.parametrize(
    ("verbs", "code"),
    [
        (("launch", "pause"), None),  # the open round is finished first
        (("launch", "halt"), "study-halted"),
        (("launch", "halt", "pause"), "study-halted"),
        (("launch", "halt", "resume"), None),
        (("launch", "close"), "study-closed"),
        (("launch", "close", "resume"), "study-closed"),
        (("launch", "withdraw alpha"), "study-closed"),
        (("launch", "withdraw alpha", "resume"), "study-closed"),
        (("launch", "withdraw beta"), None),
    ],
)
def test_what_orders_refuse(verbs: tuple[str, ...], code: str | None) -> None:
    refusal = stands(*verbs).refusal
    assert (refusal and refusal[0]) == code


@pytest.mark.parametrize("verb", ["pause", "halt"])
def test_a_sites_own_stop_leaves_as_one_code_and_no_order_undoes_it(verb: str) -> None:
    standing = derive(A, kept("launch", "halt", "resume"), stops(verb), site="alpha")
    assert standing.refusal is not None
    assert standing.refusal[0] == "site-not-ready"


def test_a_site_cannot_undo_the_consortiums_halt() -> None:
    standing = derive(A, kept("launch", "halt"), stops("halt", "resume"), site="alpha")
    assert standing.refusal is not None
    assert standing.refusal[0] == "study-halted"


def test_a_halt_of_all_studies_holds_for_each_and_one_may_be_resumed_alone() -> None:
    marks = [*stops("halt"), Stop(9, A, "resume", "ines", 2.0)]
    assert derive(A, (), marks, site="alpha").site_stopped == ""
    assert derive(B, (), marks, site="alpha").site_stopped == "halted"


def test_a_deletion_receipt_is_the_end_whatever_else_was_ordered() -> None:
    standing = derive(A, kept("launch"), (), site="alpha", is_closed=True)
    assert standing.refusal is not None
    assert standing.refusal[0] == "study-closed"


@given(st.lists(st.sampled_from(["launch", "pause", "halt", "resume", "close", "release"])))
def test_orders_about_other_studies_change_nothing(verbs: list[str]) -> None:
    assert derive(A, kept(*verbs, study=B), (), site="alpha") == Standing()


@given(st.lists(st.sampled_from(["launch", "pause", "halt", "resume", "close"])), st.data())
def test_an_order_on_call_changes_nothing_at_a_site(verbs: list[str], data: st.DataObject) -> None:
    on_call = st.sampled_from(["exclude alpha", "include alpha", "extend 600", "retry"])
    place = data.draw(st.integers(0, len(verbs)))
    mixed = [*verbs[:place], data.draw(on_call), *verbs[place:]]
    assert stands(*mixed) == stands(*verbs)


@given(
    st.lists(st.sampled_from(["pause", "halt", "resume", "close", "withdraw alpha"])),
    st.lists(st.sampled_from(["pause", "halt", "resume"])),
)
def test_work_goes_on_only_where_neither_hand_stopped_it(verbs: list[str], own: list[str]) -> None:
    standing = derive(A, kept(*verbs), stops(*own), site="alpha")
    order = [v for v in verbs if v in {"halt", "resume"}][-1:]
    is_over = bool({"close", "withdraw alpha"} & set(verbs))
    is_stopped = is_over or order == ["halt"] or own[-1:] in (["halt"], ["pause"])
    if standing.refusal is None:
        assert not is_stopped
    assert standing.is_halted <= (standing.refusal is not None)


def signed(pki: Pki, number: int, verb: str, key: SigningKey | None = None, **more: Any) -> bytes:
    order = _order(number, verb, more.pop("subject", ""), STUDY.digest)
    return sign(order.model_copy(update=more), key or pki.consortium).to_bytes()


@pytest.fixture
def running(agent: Agent, approve: Approve) -> Study:
    return approve(agent, STUDY)


def test_a_halt_ends_the_trainer_within_a_second_and_refuses_until_resumed(
    agent: Agent, running: Study, peer: Peer, trainer: SmallTrainer, pki: Pki
) -> None:
    trainer.release.clear()
    task = peer.first_task(running)
    peer.send(task)
    assert trainer.entered.wait(5)
    ordered_at = time.monotonic()
    peer.order(signed(pki, 2, "halt"))
    wait_until(lambda: peer.given)
    assert time.monotonic() - ordered_at < 1.0
    assert trainer.interrupted == [running.digest]
    assert (peer.given[0].fields["code"], peer.given[0].receipt) == ("study-halted", b"")
    assert peer.request(task).fields["code"] == "study-halted"
    peer.order(signed(pki, 3, "resume"))
    wait_until(lambda: not agent.node.cases.standing(running.digest).stopped)
    assert peer.request(task).fields["code"] == ""


def test_orders_on_call_are_kept_and_interrupt_no_training(
    agent: Agent, running: Study, peer: Peer, trainer: SmallTrainer, pki: Pki
) -> None:
    trainer.release.clear()
    task = peer.first_task(running)
    peer.send(task)
    assert trainer.entered.wait(5)
    received = audit_of(agent).count(("order-received", ""))
    given = (("exclude", "alpha"), ("include", "alpha"), ("extend", "600"), ("retry", ""))
    peer.order(*(signed(pki, n, verb, subject=to) for n, (verb, to) in enumerate(given, start=2)))
    wait_until(lambda: audit_of(agent).count(("order-received", "")) == received + 4)
    trainer.release.set()
    wait_until(lambda: peer.given)
    assert (peer.given[0].fields["code"], trainer.interrupted) == ("", [])
    peer.order(signed(pki, 6, "halt"))
    wait_until(lambda: agent.node.cases.standing(running.digest).stopped == "halted")


def test_an_order_that_comes_with_the_work_it_allows_is_taken_in_first(
    agent: Agent, running: Study, peer: Peer, pki: Pki
) -> None:
    for number in (1, 2, 3, 4):
        peer.order(signed(pki, 2 * number, "halt"))
        wait_until(lambda: agent.node.cases.standing(running.digest).stopped == "halted")
        peer.orders.append(signed(pki, 2 * number + 1, "resume"))
        peer.revision += 1  # without a bell: the request brings the news
        assert peer.request(peer.first_task(running, number)).fields["code"] == ""


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda pki: signed(pki, 2, "halt", OTHER), "wrong-signer"),
        (lambda pki: signed(pki, 1, "halt"), "order-stale"),
        (lambda pki: signed(pki, 2, "halt", pki.signing), "wrong-signer"),
        (lambda pki: b"{}", "malformed-document"),
        (lambda pki: b"x" * 100_000, "malformed-document"),
        (lambda pki: signed(pki, 2, "halt").replace(b"halt", b"ha1t"), "bad-signature"),
    ],
)
def test_an_order_that_does_not_count_is_put_on_record_once_and_changes_nothing(
    agent: Agent, running: Study, peer: Peer, pki: Pki, make: Callable[[Pki], bytes], code: str
) -> None:
    for _ in range(2):
        peer.order(make(pki))
        seen = peer.revision
        wait_until(lambda seen=seen: agent._seen == seen)  # type: ignore[misc]
    assert audit_of(agent).count(("order-rejected", code)) == 1
    assert agent.node.cases.standing(running.digest).stopped == ""


def test_an_operator_may_halt_and_may_not_resume(
    agent: Agent, running: Study, peer: Peer, pki: Pki
) -> None:
    olga = Person(name="olga", role="operator", key=OTHER.public)
    roster = make_roster(pki.signing.public, olga, version=2)
    peer.rosters.append(sign(roster, pki.consortium).to_bytes())
    peer.order(
        signed(pki, 2, "halt", OTHER, person="olga"), signed(pki, 3, "resume", OTHER, person="olga")
    )
    wait_until(lambda: ("order-rejected", "role-not-allowed") in audit_of(agent))
    standing = agent.node.cases.standing(running.digest)
    assert (standing.stopped, standing.stopped_by) == ("halted", "olga")


def test_a_release_by_who_approved_here_is_put_on_record_as_refused(
    agent: Agent, running: Study, peer: Peer, pki: Pki
) -> None:
    both = [Person(name="dora", role="member", key=pki.people.dpo.public),
            Person(name="mia", role="member", key=OTHER.public)]  # fmt: skip
    roster = make_roster(pki.signing.public, *both, version=2)
    peer.rosters.append(sign(roster, pki.consortium).to_bytes())
    peer.order(signed(pki, 2, "release", pki.people.dpo, person="dora", subject=A))
    wait_until(lambda: ("order-rejected", "duties-not-separate") in audit_of(agent))
    peer.order(signed(pki, 2, "release", OTHER, person="mia", subject=A))
    wait_until(lambda: ("order-received", "") in audit_of(agent))


def test_an_order_survives_a_restart(
    start: Callable[[], Agent], approve: Approve, peer: Peer, pki: Pki
) -> None:
    agent = start()
    study = approve(agent, STUDY)
    peer.order(signed(pki, 2, "halt"))
    wait_until(lambda: agent.node.cases.standing(study.digest).stopped == "halted")
    peer.orders.clear()  # a coordinator that forgot, or would rather not say
    agent = start()
    assert peer.request(peer.first_task(study)).fields["code"] == "study-halted"


def test_a_forged_copy_does_not_keep_the_true_order_out(
    agent: Agent, running: Study, peer: Peer, pki: Pki
) -> None:
    true = signed(pki, 2, "halt")
    forged = Signed.from_bytes(true).model_copy(update={"signature": "A" * 88})
    peer.order(forged.to_bytes())
    wait_until(lambda: ("order-rejected", "bad-signature") in audit_of(agent))
    peer.order(true)
    wait_until(lambda: agent.node.cases.standing(running.digest).stopped == "halted")


def test_an_order_with_a_number_that_no_database_holds_keeps_no_later_one_out(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    study = approve(agent, STUDY)
    huge = _order(2, "pause", study=study.digest).model_copy(update={"number": 2**63})
    halt = _order(3, "halt", study=study.digest)
    peer.order(*(sign(one, pki.consortium).to_bytes() for one in (huge, halt)))
    wait_until(lambda: ("order-rejected", "malformed-document") in audit_of(agent))
    assert peer.request(peer.first_task(study)).fields["code"] == "study-halted"
