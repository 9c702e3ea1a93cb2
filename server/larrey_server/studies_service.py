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

__all__ = ["StudiesService"]


class StudiesService(stubs.StudiesServicer):
    """A site sees the proposals that name it, and nobody else's answers."""

    def __init__(self, coordinator: Coordinator, gatekeeper: Gatekeeper) -> None:
        self._coordinator = coordinator
        self._gatekeeper = gatekeeper

    def List(
        self, request: wire.ListStudiesRequest, context: grpc.ServicerContext
    ) -> wire.ListStudiesReply:
        """Return the signed proposals that name the caller, and which of its studies ended."""
        site = self._gatekeeper.site_of(context)
        self._coordinator.heard(site)
        revision = self._coordinator.book.revision(site)  # before the list: too old, never too new
        proposals, ended = self._coordinator.book.for_site(site)
        return wire.ListStudiesReply(proposals=proposals, ended=ended, revision=revision)

    def Answer(
        self, request: wire.AnswerRequest, context: grpc.ServicerContext
    ) -> wire.AnswerReply:
        """Store the caller's signed decision."""
        site = self._gatekeeper.site_of(context)
        self._coordinator.heard(site)
        try:
            answer = self._coordinator.book.answer(site, Signed.from_bytes(request.answer))
        except IntegrityError as error:
            self._coordinator.metrics.auth_failure("bad_signature")
            return wire.AnswerReply(recorded=False, code=error.code)
        except Refusal as error:
            return wire.AnswerReply(recorded=False, code=error.code)
        self._coordinator.woken_by_answer(site, answer.study)
        return wire.AnswerReply(recorded=True)
