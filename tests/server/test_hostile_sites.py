"""What a member may tell without end, about what is past, or in another's place, and what of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from larrey_protocol.audit import AuditRecord
from larrey_protocol.certificates import key_bytes
from larrey_protocol.decisions import Deleted, DeletionReceipt, Departure
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Answer, Signed, sign
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_server.journal import DocumentRow, Journal
from larrey_server.members import MemberRow
from larrey_server.serve import Hub
from larrey_server.studies_service import StudiesService
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, SitePeer


def tell(site: SitePeer, document: Signed) -> wire.AnswerReply:
    reply: wire.AnswerReply = site.studies.Tell(wire.TellRequest(document=document.to_bytes()))
    return reply


def receipt(digest: str, at: float, items: int = 0) -> DeletionReceipt:
    deleted = tuple(Deleted(kind="upload", bytes=n) for n in range(items))
    return DeletionReceipt(study=digest, by="alpha", items=deleted, at=at)


def test_a_site_deletes_a_study_a_few_times_at_most(
    federation: Federation, alpha: SitePeer
) -> None:
    digest = federation.propose(study())
    codes = [tell(alpha, sign(receipt(digest, at), alpha.key)).code for at in (1.0, 2.0, 3.0)]
    assert codes == ["", "", "deleted-before"]
    assert tell(alpha, sign(receipt(digest, 1.0), alpha.key)).recorded  # known
    kept = federation.hub.coordinator.journal.documents("deletionreceipt", digest)
    assert len(kept) == 2


def test_a_deletion_receipt_of_many_megabytes_is_not_kept(
    federation: Federation, alpha: SitePeer
) -> None:
    digest = federation.propose(study())
    reply = tell(alpha, sign(receipt(digest, 1.0, items=30_000), alpha.key))
    assert reply.code == "document-too-long"


def test_a_site_changes_its_mind_a_hundred_times_and_can_then_still_take_it_back(
    federation: Federation, alpha: SitePeer
) -> None:
    digest = federation.propose(study())
    law = alpha.law_of(digest)

    def say(decision: str, at: float) -> str:
        own = {"study": digest, "site": "alpha", "decision": decision, "answered_at": at}
        answer = Answer.model_validate(own | (law if decision == "approved" else {}))
        request = wire.AnswerRequest(answer=sign(answer, alpha.key).to_bytes())
        return str(alpha.studies.Answer(request).code)

    codes = [say("approved", at) for at in range(101)]
    assert codes == [""] * 100 + ["too-many-answers"]
    assert say("revoked", 101.0) == ""
    assert say("revoked", 102.0) == "too-many-answers"
    records = list(federation.hub.coordinator.journal.audit())
    assert sum(record.actor == "alpha" for record in records) == 101


class Gone:
    """What gRPC tells of a call whose caller went away before it was answered."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    def add_callback(self, _: Callable[[], object]) -> bool:
        return False


def test_who_departs_and_hangs_up_has_departed(federation: Federation) -> None:
    coordinator = federation.hub.coordinator
    credential, key = federation.folder.sites["beta"]
    service = StudiesService(coordinator, federation.hub.gatekeeper)
    document = sign(Departure(site="beta", at=1.0), key).to_bytes()
    context = cast(Any, Gone(credential.certificate))
    assert service.Tell(wire.TellRequest(document=document), context).recorded
    assert coordinator.membership.show("beta")["state"] == "left"


@pytest.mark.parametrize(("joined_at", "state"), [(50.0, "left"), (200.0, "active")])
def test_after_a_restart_a_departure_ends_the_membership_it_was_of_and_no_later_one(
    tmp_path: Path, joined_at: float, state: str
) -> None:
    folder, key = Folder.make(tmp_path / "folder"), SigningKey.generate()
    journal = Journal.open(tmp_path / "state" / "coordinator.db")
    transport = key_bytes(ec.generate_private_key(ec.SECP256R1()).public_key())
    row = MemberRow("gamma", "active", joined_at, transport, key.public, "", 9e9)
    journal.add_member(row, AuditRecord(0, joined_at, "gamma", "site-joined", subject="gamma"))
    signed = sign(Departure(site="gamma", at=1.0), key)
    document = DocumentRow("departure", "gamma", 0, signed.digest, signed.to_bytes())
    record = AuditRecord(0, 100.0, "gamma", "departure-received", subject=signed.digest)
    journal.keep(document, record)
    journal.close()
    hub = Hub(folder.settings(tmp_path / "state"))
    try:
        assert hub.coordinator.membership.show("gamma")["state"] == state
    finally:
        hub.stop()
