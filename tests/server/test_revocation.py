"""What a running study does without a site whose membership ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from larrey_protocol.audit import AuditRecord
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Certificate, open_signed
from larrey_protocol.study import Study
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_server.journal import Journal
from larrey_server.members import MemberRow
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, running, until


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    yield from running(Folder.make(tmp_path / "folder"), tmp_path / "state")


def launched(federation: Federation) -> tuple[str, Study]:
    """Return a study that runs with both sites and can go on with one."""
    tiny = study(rounds__quorum=1)
    digest = federation.propose(tiny)
    for name in tiny.file.site_names:
        with federation.site(name) as site:
            assert site.approve(digest).recorded
    federation.launch(digest)
    return digest, tiny


def finish(federation: Federation, digest: str, tiny: Study) -> Certificate:
    """Let beta alone do every round and return the certificate."""
    with federation.site("beta") as beta, federation.operator() as operator:
        for _ in range(tiny.file.training.rounds):
            assert beta.answer(beta.work(), tiny).accepted
        until(lambda: operator.list()[0]["state"] == "ended")
        signer = federation.hub.coordinator.signer.public
        return open_signed(operator.certificate(digest), Certificate, signer)


def told_of(certificate: Certificate, site: str) -> set[tuple[str, str]]:
    return {(cell.outcome, cell.code) for cell in certificate.matrix if cell.site == site}


def test_a_revoked_site_is_asked_no_more_and_nobody_waits_for_it(federation: Federation) -> None:
    digest, tiny = launched(federation)
    with federation.site("alpha") as alpha:
        alpha.work()  # it was asked, and owes an answer
        federation.hub.coordinator.membership.revoke("alpha", "operator")
    certificate = finish(federation, digest, tiny)
    assert told_of(certificate, "alpha") == {("refused", "membership-ended")}
    assert told_of(certificate, "beta") == {("contributed", "")}
    assert certificate.outcome == "PARTIAL"


def test_a_study_that_goes_on_after_a_restart_knows_who_is_gone(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path / "folder")
    settings = folder.settings(tmp_path / "state")
    first = running(folder, tmp_path / "state")
    digest, tiny = launched(next(first))
    first.close()
    journal = Journal.open(tmp_path / "state" / "coordinator.db")  # killed before its study knew
    row = MemberRow("alpha", "revoked", 1.0)
    journal.add_member(row, AuditRecord(0, 1.0, "operator", "site-revoked", subject="alpha"))
    journal.close()
    again = Federation(folder, Hub(settings))
    try:
        certificate = finish(again, digest, tiny)
    finally:
        again.hub.stop()
    assert told_of(certificate, "alpha") == {("refused", "membership-ended")}


def test_an_approval_of_a_site_that_is_gone_does_not_count(federation: Federation) -> None:
    tiny = study(rounds__quorum=2)
    digest = federation.propose(tiny)
    for name in tiny.file.site_names:
        with federation.site(name) as site:
            site.approve(digest)
    federation.hub.coordinator.membership.leave("alpha")
    with pytest.raises(Refusal) as caught:
        federation.launch(digest)
    assert caught.value.code == "not-enough-approvals"


class Racing:
    """What gRPC tells of a call whose caller's membership ends while the call is let in."""

    def __init__(self, certificate: bytes, end: Callable[[], object]) -> None:
        self._certificate, self._end = certificate, end
        self._looks = 0  # into what the gatekeeper holds of this call
        self.aborted: grpc.StatusCode | None = None

    def __hash__(self) -> int:
        self._looks += 1
        if self._looks == 4:  # it is let in, and asked once more who it is
            self._end()
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._certificate]}

    def abort(self, code: grpc.StatusCode, _: str) -> None:
        self.aborted = code
        raise grpc.RpcError

    def code(self) -> grpc.StatusCode | None:
        return self.aborted

    def cancel(self) -> None:
        """Come too late: the handler is about to begin."""


def test_a_call_that_was_let_in_while_the_membership_ended_does_nothing(
    federation: Federation,
) -> None:
    done: list[str] = []
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda *_: done.append("called"))
    details = SimpleNamespace(method="/larrey.v1.Studies/Late")
    gatekeeper = federation.hub.gatekeeper
    guarded: Any = gatekeeper.intercept_service(lambda _: handler, cast(Any, details))
    credential, _ = federation.folder.sites["alpha"]
    coordinator = federation.hub.coordinator
    context = Racing(
        credential.certificate, lambda: coordinator.membership.revoke("alpha", "operator")
    )
    with pytest.raises(grpc.RpcError):
        guarded.stream_unary(iter((wire.ListStudiesRequest(),)), context)
    assert (done, context.aborted) == ([], grpc.StatusCode.UNAUTHENTICATED)
    assert "site alpha" not in gatekeeper.calls()
