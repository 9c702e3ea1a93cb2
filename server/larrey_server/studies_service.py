"""`larrey.v1.Studies`: what is proposed to a hospital, and its signed answers."""

# ruff: noqa: N802 (the protocol names these methods)
from __future__ import annotations

import grpc

from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.signed import Signed
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.coordinator import Coordinator
from larrey_server.gatekeeper import Gatekeeper
from larrey_server.studies import StudyBook
from larrey_server.told import hear

__all__ = ["StudiesService", "listing"]


def listing(book: StudyBook, site: str) -> wire.ListStudiesReply:
    """Return all that a site is told: what invites it, and the law under which it stands.

    Everything in it is signed by the consortium's side; the site checks it again.
    """
    revision = book.revision(site)  # before the list: too old, never too new
    running, ended = book.invited(site)
    references = {book.study(row.digest).file.study.permit: None for row in running}
    return wire.ListStudiesReply(
        proposals=[row.proposal for row in running],
        ended=[row.digest for row in ended],
        permits=[permit for reference in references for permit in book.law.permits(reference)],
        rosters=book.law.rosters(),
        revision=revision,
    )


class StudiesService(stubs.StudiesServicer):
    """A site sees the proposals that name it, and nobody else's answers."""

    def __init__(self, coordinator: Coordinator, gatekeeper: Gatekeeper) -> None:
        self._coordinator = coordinator
        self._gatekeeper = gatekeeper

    def List(
        self, request: wire.ListStudiesRequest, context: grpc.ServicerContext
    ) -> wire.ListStudiesReply:
        """Return the signed proposals that name the caller, with permits and rosters."""
        site = self._gatekeeper.site_of(context)
        self._coordinator.presence.heard(site)
        reply = listing(self._coordinator.book, site)
        reply.orders.extend(self._coordinator.commander.orders_for(site))
        reply.anchors.extend(self._coordinator.anchors.of(site))
        return reply

    def Answer(
        self, request: wire.AnswerRequest, context: grpc.ServicerContext
    ) -> wire.AnswerReply:
        """Store the caller's signed decision."""
        site = self._gatekeeper.site_of(context)
        self._coordinator.presence.heard(site)
        try:
            answer = self._coordinator.book.answer(site, Signed.from_bytes(request.answer))
        except IntegrityError as error:
            self._coordinator.metrics.auth_failure("bad_signature")
            return wire.AnswerReply(recorded=False, code=error.code)
        except Refusal as error:
            return wire.AnswerReply(recorded=False, code=error.code)
        self._coordinator.decided(site, answer)
        return wire.AnswerReply(recorded=True)

    def Tell(self, request: wire.TellRequest, context: grpc.ServicerContext) -> wire.AnswerReply:
        """Take another document that the caller signed; see `larrey_server.told`."""
        site = self._gatekeeper.site_of(context)
        self._coordinator.presence.heard(site)
        try:
            afterwards = hear(self._coordinator, site, Signed.from_bytes(request.document))
        except IntegrityError as error:
            self._coordinator.metrics.auth_failure("bad_signature")
            return wire.AnswerReply(recorded=False, code=error.code)
        except Refusal as error:
            return wire.AnswerReply(recorded=False, code=error.code)
        if afterwards is not None and not context.add_callback(afterwards):
            afterwards()  # the site hung up already
        return wire.AnswerReply(recorded=True)
