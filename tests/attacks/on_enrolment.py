"""Attacks on the coordinator: strangers, invitations, and sites that speak for others."""

from __future__ import annotations

import threading

import numpy as np

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.certificates import issue_client, make_authority
from larrey_protocol.decisions import DeletionReceipt, Departure, Order
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.signed import Answer, Proposal, sign
from larrey_protocol.tensors import pack
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from tests.attacks.catalogue import attack
from tests.attacks.office import Office, request_of
from tests.server.peers import NOW, SitePeer, small_update, until

# --- strangers


@attack("certificate-of-a-foreign-authority", target="office")
def certificate_of_a_foreign_authority(office: Office) -> str:
    foreign = issue_client(make_authority("foreign", now=NOW), "alpha", now=NOW)
    with office.channel(foreign) as channel:
        return office.denied(
            lambda: stubs.StudiesStub(channel).List(wire.ListStudiesRequest(), timeout=5)
        )


@attack("no-certificate", target="office")
def no_certificate(office: Office) -> str:
    with office.channel(None) as channel:
        return office.denied(
            lambda: stubs.StudiesStub(channel).List(wire.ListStudiesRequest(), timeout=5)
        )


@attack("certificate-unregistered", target="office")
def certificate_unregistered(office: Office) -> str:
    """Signed by the right authority, under the name of a member, and of a key nobody knows."""
    stranger = issue_client(office.folder.authority, "alpha", now=NOW)
    with office.channel(stranger) as channel:
        return office.denied(
            lambda: stubs.StudiesStub(channel).List(wire.ListStudiesRequest(), timeout=5)
        )


@attack("certificate-revoked", target="office", alone=True)
def certificate_revoked(office: Office) -> str:
    """An open call of a revoked site ends, and it gets in no more."""
    ended = threading.Event()
    with office.site("alpha") as alpha:
        seen = alpha.studies.List(wire.ListStudiesRequest(), timeout=5).revision
        poll = alpha.exchange.Take.future(wire.TakeRequest(studies_seen=seen))
        poll.add_done_callback(lambda _: ended.set())
        until(lambda: "site alpha" in office.hub.gatekeeper.calls())
        with office.operator() as operator:
            operator.members({"verb": "revoke", "site": "alpha"})
        assert ended.wait(10)
        office.watch()
        return office.denied(lambda: alpha.studies.List(wire.ListStudiesRequest(), timeout=5))


@attack("site-as-operator", target="office")
def site_as_operator(office: Office) -> str:
    with office.site("alpha") as alpha:
        return office.denied(
            lambda: alpha.control.Members(wire.MembersRequest(json="{}"), timeout=5)
        )


@attack("operator-as-site", target="office")
def operator_as_site(office: Office) -> str:
    with office.channel(office.folder.operator) as channel:
        return office.denied(
            lambda: stubs.StudiesStub(channel).List(wire.ListStudiesRequest(), timeout=5)
        )


@attack("calls-flood", target="office")
def calls_flood(office: Office) -> str:
    """One site holds open as many calls as it can; the others are served."""
    with office.site("alpha") as alpha:
        seen = alpha.studies.List(wire.ListStudiesRequest(), timeout=5).revision
        held = [
            alpha.exchange.Fetch(wire.FetchRequest(digest="sha256:" + "0" * 64)) for _ in range(1)
        ]
        stores = [alpha.exchange.Store.future(_never()) for _ in range(12)]
        until(lambda: any(call.done() for call in stores))
        codes = {call.details() for call in stores if call.done()}
        with office.site("beta") as beta:
            assert beta.studies.List(wire.ListStudiesRequest(), timeout=5).revision == seen
        for call in (*held, *stores):
            call.cancel()
    until(lambda: "site alpha" not in office.hub.gatekeeper.calls())
    return ",".join(sorted(codes))


def _never() -> object:
    """Give a stream that begins and never ends."""
    threading.Event().wait(5)
    yield wire.StorePart()


# --- invitations


@attack("invitation-for-more", target="office")
def invitation_for_more(office: Office) -> str:
    _, bootstrap = office.invite("gamma")
    with office.channel(bootstrap) as channel:
        exchange, studies = stubs.ExchangeStub(channel), stubs.StudiesStub(channel)
        control = stubs.ControlStub(channel)
        calls = (
            lambda: exchange.Take(wire.TakeRequest(), timeout=5),
            lambda: next(exchange.Fetch(wire.FetchRequest(), timeout=5)),
            lambda: studies.List(wire.ListStudiesRequest(), timeout=5),
            lambda: studies.Answer(wire.AnswerRequest(), timeout=5),
            lambda: studies.Tell(wire.TellRequest(), timeout=5),
            lambda: control.Members(wire.MembersRequest(json="{}"), timeout=5),
        )
        return ",".join(sorted({office.denied(call) for call in calls}))


@attack("invitation-twice", target="office", alone=True)
def invitation_twice(office: Office) -> str:
    invitation, bootstrap = office.invite("delta")
    assert office.join(bootstrap, request_of("delta", invitation)) == ""
    office.watch()
    return office.join(bootstrap, request_of("delta", invitation))


@attack("invitation-of-another", target="office")
def invitation_of_another(office: Office) -> str:
    invitation, bootstrap = office.invite("zeta")
    return office.join(bootstrap, request_of("alpha", invitation))


@attack("invitation-replaced", target="office")
def invitation_replaced(office: Office) -> str:
    invitation, bootstrap = office.invite("eta")
    office.invite("eta")
    return office.denied(lambda: office.join(bootstrap, request_of("eta", invitation)))


@attack("invitation-over", target="office")
def invitation_over(office: Office) -> str:
    """The bootstrap credential ends with the invitation, even on an open connection."""
    invitation, bootstrap = office.invite("theta", days=2e-6)
    threading.Event().wait(0.2)
    return office.denied(lambda: office.join(bootstrap, request_of("theta", invitation)))


@attack("invitation-guessed", target="office")
def invitation_guessed(office: Office) -> str:
    _, bootstrap = office.invite("kappa")
    codes = [office.join(bootstrap, request_of("kappa", f"{n:032x}")) for n in range(11)]
    assert set(codes[:10]) == {"invitation-unknown"}
    return codes[10]


@attack("keys-of-another-member", target="office")
def keys_of_another_member(office: Office) -> str:
    invitation, bootstrap = office.invite("lambda")
    stolen = request_of("lambda", invitation, office.folder.sites["beta"][1])
    return office.join(bootstrap, stolen)


@attack("renewal-for-another", target="office")
def renewal_for_another(office: Office) -> str:
    credential, key = office.folder.sites["alpha"]
    signed = request_of("beta", key=key)
    with office.channel(credential) as channel:
        call = wire.RenewCall(request=signed.to_bytes())
        return str(stubs.EnrolmentStub(channel).Renew(call, timeout=5).code)


# --- sites that speak for others


@attack("answer-for-another-site", target="office")
def answer_for_another_site(office: Office) -> str:
    digest = office.propose(office.study())
    with office.site("alpha") as alpha:
        return str(alpha.approve(digest, site="beta").code)


@attack("answer-of-another-replayed", target="office")
def answer_of_another_replayed(office: Office) -> str:
    digest = office.propose(office.study())
    key = office.folder.sites["beta"][1]
    answer = Answer(study=digest, site="beta", decision="refused", code="not-held", answered_at=0.0)
    with office.site("alpha") as alpha:
        call = wire.AnswerRequest(answer=sign(answer, key).to_bytes())
        return str(alpha.studies.Answer(call).code)


@attack("answer-with-text", target="office")
def answer_with_text(office: Office) -> str:
    digest = office.propose(office.study())
    with office.site("alpha") as alpha:
        answer = Answer.model_construct(
            study=digest, site="alpha", decision="refused", code="Dupont", answered_at=0.0
        )
        call = wire.AnswerRequest(answer=sign(answer, alpha.key).to_bytes())
        return str(alpha.studies.Answer(call).code)


@attack("departure-of-another", target="office")
def departure_of_another(office: Office) -> str:
    with office.site("alpha") as alpha:
        signed = sign(Departure(site="beta", at=0.0), alpha.key)
        return str(alpha.studies.Tell(wire.TellRequest(document=signed.to_bytes())).code)


@attack("deletion-by-another", target="office")
def deletion_by_another(office: Office) -> str:
    digest = office.propose(office.study())
    with office.site("alpha") as alpha:
        receipt = DeletionReceipt(study=digest, by="beta", items=(), at=0.0)
        call = wire.TellRequest(document=sign(receipt, alpha.key).to_bytes())
        return str(alpha.studies.Tell(call).code)


@attack("order-by-a-site", target="office")
def order_by_a_site(office: Office) -> str:
    digest = office.propose(office.study())
    with office.site("alpha") as alpha:
        order = Order(study=digest, number=1, verb="launch", person="ada", at=0.0)
        call = wire.TellRequest(document=sign(order, alpha.key).to_bytes())
        return str(alpha.studies.Tell(call).code)


@attack("proposal-by-an-operator", target="office")
def proposal_by_an_operator(office: Office) -> str:
    """Who operates the coordinator holds no person's key."""
    forged = sign(Proposal(study=office.study(), proposed_at=0.0), SigningKey.generate())
    return office.denied(lambda: office.hub.coordinator.propose(forged))


@attack("upload-without-a-task", target="office")
def upload_without_a_task(office: Office) -> str:
    with office.site("alpha") as alpha:
        return office.denied(lambda: alpha.store(small_update(office.study(), seed=77)))


@attack("model-of-another-task", target="office")
def model_of_another_task(office: Office) -> str:
    digests = ("sha256:" + "0" * 64, "../../signing.pem", "")
    with office.site("alpha") as alpha:
        return ",".join({office.denied(lambda d=d: alpha.fetch(d)) for d in digests})  # type: ignore[misc]


# --- answers of a lying site


def answering(office: Office, lie: object) -> str:
    """Launch a study and have alpha answer its first task with a lie."""
    study = office.launched()
    try:
        with office.site("alpha") as alpha:
            return str(lie(alpha, alpha.work(), study))  # type: ignore[operator]
    finally:
        office.close(study)


@attack("receipt-of-another-site", target="office")
def receipt_of_another_site(office: Office) -> str:
    def lie(alpha: SitePeer, work: object, study: object) -> str:
        update = small_update(study)  # type: ignore[arg-type]
        alpha.store(update)
        digest, key = digest_bytes(update), alpha.key
        alpha.key = office.folder.sites["beta"][1]
        receipt = alpha.receipt(work, digest, len(update))  # type: ignore[arg-type]
        alpha.key = key
        return alpha.give(work, digest, receipt=receipt).code  # type: ignore[arg-type]

    return answering(office, lie)


@attack("receipt-of-another-round", target="office")
def receipt_of_another_round(office: Office) -> str:
    def lie(alpha: SitePeer, work: object, study: object) -> str:
        update = small_update(study)  # type: ignore[arg-type]
        alpha.store(update)
        digest = digest_bytes(update)
        receipt = alpha.receipt(work, digest, len(update), round=2)  # type: ignore[arg-type]
        return alpha.give(work, digest, receipt=receipt).code  # type: ignore[arg-type]

    return answering(office, lie)


@attack("receipt-missing", target="office")
def receipt_missing(office: Office) -> str:
    def lie(alpha: SitePeer, work: object, study: object) -> str:
        update = small_update(study)  # type: ignore[arg-type]
        alpha.store(update)
        return alpha.give(work, digest_bytes(update)).code  # type: ignore[arg-type]

    return answering(office, lie)


@attack("upload-larger-than-announced", target="office")
def upload_larger_than_announced(office: Office) -> str:
    def lie(alpha: SitePeer, work: object, study: object) -> str:
        update = small_update(study)  # type: ignore[arg-type]
        part = wire.StorePart(
            digest=digest_bytes(update), total_bytes=len(update), data=update + b"x"
        )
        return office.denied(lambda: alpha.exchange.Store(iter([part])))

    return answering(office, lie)


@attack("upload-under-another-digest", target="office")
def upload_under_another_digest(office: Office) -> str:
    def lie(alpha: SitePeer, work: object, study: object) -> str:
        update = small_update(study)  # type: ignore[arg-type]
        part = wire.StorePart(digest="sha256:" + "1" * 64, total_bytes=len(update), data=update)
        return office.denied(lambda: alpha.exchange.Store(iter([part])))

    return answering(office, lie)


@attack("poisoned-update", target="office")
def poisoned_update(office: Office) -> str:
    """NaN in one site's update would make everybody's model NaN."""
    study = office.launched()
    layout = model_layout(study)
    poison = pack(layout, np.full(layout.size, np.nan, np.float32))
    with office.site("alpha") as alpha:
        work = alpha.work()
        alpha.store(poison)
        digest = digest_bytes(poison)
        alpha.give(work, digest, receipt=alpha.receipt(work, digest, len(poison)))
    with office.site("beta") as beta:
        beta.answer(beta.work(), study)

    def outcome() -> str:
        cells = office.hub.coordinator.journal.contributions(study.digest)
        return next((c.cell.code for c in cells if c.cell.site == "alpha" and c.cell.code), "")

    until(lambda: outcome() != "")
    office.close(study)
    return outcome()
