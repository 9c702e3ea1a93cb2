"""Signed orders at the coordinator, over the real port: who may, in which order, what they do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from larrey_protocol.decisions import DeletionReceipt, Departure, Order
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Certificate, Signed, open_signed, sign
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.cli import main
from larrey_server.lineage import descendants, models_with
from larrey_server.orders import Given, Present, require_sensible
from larrey_server.round_values import Cell
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, SitePeer, until
from tests.server.test_study_over_grpc import approve_all, run_sites

DIGEST = "sha256:" + "a" * 64
MODEL = "sha256:" + "b" * 64


def order(number: int, verb: str, of: str = DIGEST, **changes: Any) -> Order:
    fields = {"study": of, "number": number, "verb": verb, "person": "ada", "at": 5.0}
    return Order.model_validate(fields | changes)


@pytest.fixture
def running(federation: Federation) -> tuple[Federation, str]:
    """Give a launched study of which nobody answered anything."""
    digest = approve_all(federation, study())
    federation.launch(digest)
    return federation, digest


def command(federation: Federation, of: str, verb: str, subject: str = "") -> dict[str, Any]:
    with federation.operator() as operator:
        return operator.command(of, verb, subject)


def code_of(federation: Federation, signed: Signed) -> str:
    with pytest.raises(LarreyError) as caught:
        federation.hub.coordinator.command(signed)
    return caught.value.code


def listed(site: SitePeer) -> list[Order]:
    reply = site.studies.List(wire.ListStudiesRequest())
    signed = [Signed.from_bytes(data) for data in reply.orders]
    return [open_signed(one, Order, one.signer) for one in signed]


def test_launch_is_an_order_and_sites_are_told_it(running: tuple[Federation, str]) -> None:
    federation, _ = running
    with federation.site("alpha") as alpha:
        (launch,) = listed(alpha)
    assert (launch.verb, launch.number, launch.person) == ("launch", 1, "ada")


def test_nothing_but_a_signed_order_launches(federation: Federation) -> None:
    assert not hasattr(stubs.ControlServicer, "Launch")
    approve_all(federation, study())
    with federation.operator() as operator:
        assert operator.list()[0]["state"] == "proposed"


def test_a_pause_waits_after_the_round_and_says_who_ordered_it(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    facts = command(federation, digest, "pause")
    assert (facts["state"], facts["stop"], facts["stop_by"]) == ("open", "pause", "ada")
    tiny = study()
    for name in tiny.file.site_names:
        with federation.site(name) as site:
            assert site.answer(site.work(), tiny).accepted
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["state"] == "paused")
        assert operator.find(digest)["applied"] == 1
        assert operator.command(digest, "resume")["state"] == "open"


def test_a_halt_takes_the_work_back_rings_the_site_and_resuming_asks_again(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    with federation.site("alpha") as alpha:
        work = alpha.work()
        seen = alpha.seen
        assert command(federation, digest, "halt")["state"] == "halted"
        alpha.take()
        assert alpha.seen != seen
        assert [one.verb for one in listed(alpha)] == ["launch", "halt"]
        reply = alpha.give(work, code="study-halted")
        assert reply.code == "not-expected"
        facts = command(federation, digest, "resume")
        assert (facts["state"], facts["round"], facts["attempt"]) == ("open", 1, 2)
        assert alpha.work().fields["attempt"] == 2


def test_a_halt_survives_a_restart_until_a_person_resumes(folder: Folder, tmp_path: Path) -> None:
    first = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    digest = approve_all(first, study())
    first.launch(digest)
    command(first, digest, "halt")
    first.hub.stop()
    second = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    try:
        with second.operator() as operator, second.site("alpha") as alpha:
            facts = operator.find(digest)
            assert (facts["state"], facts["stop_by"]) == ("halted", "ada")
            assert (
                b'larrey_run_stopped{stop="halt",study="tiny"} 1.0' in second.hub.metrics.expose()
            )
            assert alpha.take() is None
            operator.command(digest, "resume")
            assert (
                b'larrey_run_stopped{stop="halt",study="tiny"} 0.0' in second.hub.metrics.expose()
            )
            with second.site("beta") as beta:  # the quorum has to be there
                listed(beta)
            assert alpha.work().fields["attempt"] == 2
    finally:
        second.hub.stop()


def test_an_order_kept_and_not_carried_out_is_carried_out_at_the_next_start(
    folder: Folder, tmp_path: Path
) -> None:
    first = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    digest = approve_all(first, study())
    first.launch(digest)
    halt = sign(order(2, "halt", digest), folder.ada)
    first.hub.coordinator.commander.orders.take(halt, lambda *_: None)  # and then a kill
    first.hub.stop()
    second = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    try:
        with second.operator() as operator:
            until(lambda: operator.find(digest)["state"] == "halted")
    finally:
        second.hub.stop()


def test_orders_that_do_not_count_are_refused_and_not_kept(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    folder, stranger = federation.folder, SigningKey.generate()
    cases = {
        "order-stale": [sign(order(n, "halt", digest), folder.ada) for n in (1, 3)],
        "wrong-signer": [
            sign(order(2, "halt", digest), stranger),
            sign(order(2, "halt", digest, person="ben"), folder.ada),
            sign(order(2, "halt", digest), folder.sites["alpha"][1]),
        ],
        "role-not-allowed": [sign(order(2, "close", digest, person="ben"), folder.ben)],
        "unknown-study": [sign(order(1, "halt"), folder.ada)],
        "nothing-to-resume": [sign(order(2, "resume", digest), folder.ada)],
        "already-launched": [sign(order(2, "launch", digest), folder.ada)],
        "not-invited": [sign(order(2, "withdraw", digest, subject="gamma"), folder.ada)],
    }
    for code, orders in cases.items():
        assert [code_of(federation, one) for one in orders] == [code] * len(orders)
    assert federation.hub.coordinator.commander.orders.last(digest) == 1


def test_the_same_order_sent_twice_counts_once(running: tuple[Federation, str]) -> None:
    federation, digest = running
    halt = sign(order(2, "halt", digest), federation.folder.ada)
    first = federation.hub.coordinator.command(halt)
    again = federation.hub.coordinator.command(halt)
    assert (first["order"], again["order"], again["state"]) == (2, 2, "halted")


def test_every_order_is_on_record_with_its_persons_name(running: tuple[Federation, str]) -> None:
    federation, digest = running
    with federation.operator("ben") as operator:
        operator.command(digest, "halt")
    trail = [(r.actor, r.action) for r in federation.hub.coordinator.journal.audit()]
    assert ("ada", "launch-ordered") in trail
    assert trail.index(("ben", "halt-ordered")) < trail.index(("coordinator", "study-halted"))


def test_a_withdrawn_site_is_out_and_every_model_with_it_is_named(federation: Federation) -> None:
    tiny = study(rounds__quorum=1)
    digest = approve_all(federation, tiny)
    federation.launch(digest)
    for name in tiny.file.site_names:
        with federation.site(name) as site:
            site.answer(site.work(), tiny)
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["applied"] == 1)
        facts = operator.command(digest, "withdraw", "beta")
        applied = operator.find(digest)["model"]
    assert [(e["round"], e["model"], e["is_last"]) for e in facts["includes"]] == [
        (1, applied, True)
    ]
    state = {row["site"]: (row["state"], row["code"]) for row in facts["sites"]}
    assert state["beta"] == ("declined", "site-withdrawn")
    with federation.site("alpha") as alpha:
        for _ in range(2):
            alpha.answer(alpha.work(), tiny)
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["state"] == "ended")
        paper = json.loads(operator.certificate(digest).document)
    assert paper["outcome"] == "PARTIAL"
    cells = {(c["site"], c["round"]): (c["outcome"], c["code"]) for c in paper["matrix"]}
    assert cells["beta", 1] == ("contributed", "")
    assert cells["beta", 2] == cells["beta", 3] == ("refused", "site-withdrawn")


def test_a_site_withdrawn_before_launch_is_never_asked(federation: Federation) -> None:
    tiny = study(rounds__quorum=1)
    digest = approve_all(federation, tiny)
    command(federation, digest, "withdraw", "beta")
    facts = command(federation, digest, "launch")
    assert {row["site"]: row["state"] for row in facts["sites"]}["beta"] == "not-joined"


def test_closing_deletes_models_and_uploads_and_signs_a_receipt(federation: Federation) -> None:
    tiny = study(training__rounds=1)
    digest = approve_all(federation, tiny)
    federation.launch(digest)
    run_sites(federation, tiny)
    coordinator = federation.hub.coordinator
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["state"] == "ended")
        facts = operator.command(digest, "close")
        with pytest.raises(Refusal, match="no-such-round"):
            operator.model(digest, -1, federation.folder.path / "gone")
        with pytest.raises(Refusal, match="already-closed"):
            operator.command(digest, "close")
        assert operator.certificate(digest)
    assert list((coordinator.state / "studies").iterdir()) == []
    assert list(coordinator.spool.folder.iterdir()) == []
    (row,) = coordinator.journal.documents("deletionreceipt", digest)
    receipt = open_signed(
        Signed.from_bytes(row.document), DeletionReceipt, coordinator.signer.public
    )
    assert sorted(item.kind for item in receipt.items)[-1] == "model"
    assert facts["deletions"][0]["by"] == "coordinator"


def test_closing_a_running_study_ends_it_first(running: tuple[Federation, str]) -> None:
    federation, digest = running
    facts = command(federation, digest, "close")
    assert (facts["state"], facts["outcome"], facts["reason"]) == (
        "ended", "FAILED", "closed-by-order",
    )  # fmt: skip
    assert len(facts["deletions"]) == 1


def test_closing_what_was_never_launched_ends_it_with_a_certificate(
    federation: Federation,
) -> None:
    digest = approve_all(federation, study())
    assert command(federation, digest, "close")["state"] == "ended"
    with federation.operator() as operator:
        key = federation.hub.coordinator.signer.public
        paper = open_signed(operator.certificate(digest), Certificate, key)
    assert (paper.outcome, paper.rounds_applied, paper.model) == ("FAILED", 0, "")


def tell(site: SitePeer, document: Signed) -> wire.AnswerReply:
    reply: wire.AnswerReply = site.studies.Tell(wire.TellRequest(document=document.to_bytes()))
    return reply


def test_a_sites_deletion_receipt_is_kept_and_shown(running: tuple[Federation, str]) -> None:
    federation, digest = running
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        receipt = DeletionReceipt(study=digest, by="alpha", items=(), at=1.0)
        signed = sign(receipt, alpha.key)
        assert tell(beta, signed).code == "wrong-signer"
        assert tell(beta, sign(receipt, beta.key)).code == "wrong-signer"
        assert tell(alpha, signed).recorded
        assert tell(alpha, signed).recorded
        assert tell(alpha, sign(order(2, "halt", digest), alpha.key)).code == "document-unexpected"
    with federation.operator() as operator:
        assert [d["by"] for d in operator.find(digest)["deletions"]] == ["alpha"]


def test_a_departing_site_is_no_member_any_more(running: tuple[Federation, str]) -> None:
    federation, digest = running
    with federation.site("beta") as beta:
        assert tell(beta, sign(Departure(site="alpha", at=1.0), beta.key)).code == "wrong-signer"
        assert tell(beta, sign(Departure(site="beta", at=1.0), beta.key)).recorded
        until(lambda: not _may_list(beta))
    with federation.operator() as operator:
        until(lambda: _site(operator.find(digest), "beta")["code"] == "membership-ended")


def _may_list(site: SitePeer) -> bool:
    try:
        reply: Message = site.studies.List(wire.ListStudiesRequest())
    except grpc.RpcError:
        return False
    return reply is not None


def _site(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in facts["sites"] if row["site"] == name)


def test_the_command_line_stops_a_study_and_says_who_did(
    running: tuple[Federation, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation, _ = running
    file = str(federation.folder.operator_file(tmp_path / "op.toml", federation.hub.address))
    assert main(["study", "halt", "tiny", "--operator", file]) == 0
    assert "halt ordered by ada" in capsys.readouterr().out
    assert main(["study", "list", "--operator", file]) == 0
    assert "halt ordered by ada" in capsys.readouterr().out
    assert main(["study", "withdraw", "tiny", "beta", "--operator", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["includes"] == []
    assert main(["study", "close", "tiny", "--operator", file]) == 2
    assert "not-confirmed" in capsys.readouterr().err
    assert main(["study", "close", "tiny", "--operator", file, "--yes"]) == 0
    assert "coordinator deleted" in capsys.readouterr().err


LAUNCHED = Given(order(1, "launch"), "key of ada")
ENDED = Present("heart", "ended", "", ("alpha",), MODEL, (LAUNCHED,))


@pytest.mark.parametrize(
    ("subject", "key", "present", "code"),
    [
        (MODEL, "key of ben", ENDED, ""),
        (MODEL, "key of ada", ENDED, "duties-not-separate"),
        (DIGEST, "key of ben", ENDED, "wrong-model"),
        (
            MODEL,
            "key of ben",
            Present("heart", "open", "", ("alpha",), MODEL, (LAUNCHED,)),
            "study-not-ended",
        ),
    ],
)
def test_a_release_needs_the_last_model_and_another_person(
    subject: str, key: str, present: Present, code: str
) -> None:
    release = order(2, "release", subject=subject, person=key.removeprefix("key of "))
    if not code:
        require_sensible(release, key, present)
        return
    with pytest.raises(Refusal, match=code):
        require_sensible(release, key, present)


def test_every_model_after_a_sites_first_applied_round_includes_it() -> None:
    cells = [
        Cell("beta", 1, 1, "contributed", "round-not-applied"),
        Cell("beta", 1, 2, "late"),
        Cell("beta", 2, 1, "contributed"),
        Cell("beta", 3, 1, "refused", "site-withdrawn"),
    ]
    models = [(0, "m0"), (1, "m1"), (2, "m2"), (3, "m3")]
    found = models_with("beta", cells, models)
    assert [(one["round"], one["is_last"]) for one in found] == [(2, False), (3, True)]
    assert models_with("alpha", cells, models) == []


def test_versions_that_amend_a_study_are_its_descendants() -> None:
    parents = {"a": "", "b": "a", "c": "b", "d": "", "e": "d"}
    assert descendants("a", parents) == ["a", "b", "c"]
    assert descendants("e", parents) == ["e"]


def test_a_study_halted_by_its_coordinator_is_resumed_by_a_person_only(
    running: tuple[Federation, str],
) -> None:
    federation, digest = running
    federation.hub.coordinator.halt(digest, "permit-expired")
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["state"] == "halted")
        facts = operator.find(digest)
        assert (facts["stop_by"], facts["stop_code"]) == ("coordinator", "permit-expired")
        assert operator.command(digest, "resume")["state"] == "open"


def test_an_order_signed_by_nobody_is_not_read(federation: Federation) -> None:
    signed = sign(order(1, "halt"), SigningKey.generate())
    with pytest.raises(IntegrityError, match="wrong-signer"):
        federation.hub.coordinator.command(signed)
