"""`larrey.v1.Control`: what operators of the consortium call. No hospital reaches it."""

# ruff: noqa: N802 (the protocol names these methods)
from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from larrey_protocol.errors import LarreyError, Refusal
from larrey_protocol.signed import Signed
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.coordinator import Coordinator
from larrey_server.exchange_service import chunks
from larrey_server.gatekeeper import Gatekeeper
from larrey_server.members_command import answer_members
from larrey_server.seal import read_seal
from larrey_server.trail import told

__all__ = ["ControlService"]


class ControlService(stubs.ControlServicer):
    """Proposes, launches and watches studies."""

    def __init__(self, coordinator: Coordinator, gatekeeper: Gatekeeper) -> None:
        self._coordinator = coordinator
        self._gatekeeper = gatekeeper

    def Propose(
        self, request: wire.ProposeRequest, context: grpc.ServicerContext
    ) -> wire.ProposeReply:
        """Store a study that the consortium signed."""
        with _explained(context):
            study = self._coordinator.propose(Signed.from_bytes(request.proposal))
            return wire.ProposeReply(digest=study.digest)

    def Command(
        self, request: wire.CommandRequest, context: grpc.ServicerContext
    ) -> wire.StatusReply:
        """Carry out a person's signed order about a study."""
        with _explained(context):
            facts = self._coordinator.command(Signed.from_bytes(request.order))
            return wire.StatusReply(json=_json(facts))

    def List(
        self, request: wire.ListStudiesRequest, context: grpc.ServicerContext
    ) -> wire.StatusListReply:
        """Return the status of every study, oldest first."""
        rows = self._coordinator.book.rows()
        return wire.StatusListReply(json=[_json(self._coordinator.status(row)) for row in rows])

    def Watch(
        self, request: wire.StudyRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.Event]:
        """Stream the status now, then every event until the study ends."""
        with _explained(context):
            digest = self._coordinator.book.find(request.study).digest
        with self._coordinator.feed.watch(digest) as events:
            context.add_callback(lambda: events.put(None))
            row = self._coordinator.book.find(digest)
            yield wire.Event(json=_json(self._coordinator.status(row)))
            while row.state != "ended" and (event := events.get()) is not None:
                yield wire.Event(json=_json(event))

    def Model(
        self, request: wire.ModelRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.Chunk]:
        """Stream the model after a round."""
        with _explained(context):
            row = self._coordinator.book.find(request.study)
            path = self._coordinator.checkpoint(row, request.round)
        yield from chunks(os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0)

    def PutPermit(
        self, request: wire.DocumentRequest, context: grpc.ServicerContext
    ) -> wire.ProposeReply:
        """Store a version of a permit."""
        with _explained(context):
            signed = Signed.from_bytes(request.document)
            self._coordinator.take_permit(signed)
            return wire.ProposeReply(digest=signed.digest)

    def Permits(
        self, request: wire.DocumentQuery, context: grpc.ServicerContext
    ) -> wire.DocumentsReply:
        """Return all versions of a permit, of all permits without a name, oldest first."""
        return wire.DocumentsReply(documents=self._coordinator.book.law.permits(request.name))

    def PutRoster(
        self, request: wire.DocumentRequest, context: grpc.ServicerContext
    ) -> wire.ProposeReply:
        """Store a roster or a change of the consortium's key."""
        with _explained(context):
            signed = Signed.from_bytes(request.document)
            self._coordinator.take_roster(signed)
            return wire.ProposeReply(digest=signed.digest)

    def Rosters(
        self, request: wire.DocumentQuery, context: grpc.ServicerContext
    ) -> wire.DocumentsReply:
        """Return all rosters and key changes, oldest first."""
        return wire.DocumentsReply(documents=self._coordinator.book.law.rosters())

    def Documents(
        self, request: wire.StudyRequest, context: grpc.ServicerContext
    ) -> wire.DocumentsReply:
        """Return the signed documents about a study."""
        with _explained(context):
            row = self._coordinator.book.find(request.study)
            return wire.DocumentsReply(documents=self._coordinator.book.documents(row))

    def Certificate(
        self, request: wire.StudyRequest, context: grpc.ServicerContext
    ) -> wire.CertificateReply:
        """Return the signed participation certificate of an ended study."""
        with _explained(context):
            row = self._coordinator.book.find(request.study)
            certificate = self._coordinator.journal.certificate(row.digest)
            if certificate is None:
                raise Refusal(
                    "study-not-ended",
                    f"study {row.name} has no certificate yet",
                    f"Wait for its end: larrey study watch {row.name}",
                )
            return wire.CertificateReply(certificate=certificate)

    def Audit(
        self, request: wire.DocumentQuery, context: grpc.ServicerContext
    ) -> Iterator[wire.Event]:
        """Stream the audit trail and what witnesses it."""
        coordinator = self._coordinator
        for document in told(coordinator.journal, request.after, read_seal(coordinator.state)):
            yield wire.Event(json=_json(document))

    def Members(
        self, request: wire.MembersRequest, context: grpc.ServicerContext
    ) -> wire.StatusReply:
        """Invite, admit, list, show or revoke sites."""
        operator = self._gatekeeper.caller(context).name
        with _explained(context):
            membership, key = self._coordinator.membership, self._coordinator.book.consortium
            pem = self._gatekeeper.certificate(context)
            answer = answer_members(membership, key, request.json, operator, pem)
            return wire.StatusReply(json=_json(answer))


@contextmanager
def _explained(context: grpc.ServicerContext) -> Iterator[None]:
    """Answer an error with its code, sentence and next step: operators may read them."""
    try:
        yield
    except LarreyError as error:
        text = {"code": error.code, "message": error.message, "next_step": error.next_step}
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, json.dumps(text))


def _json(facts: dict[str, Any]) -> str:  # Any: JSON
    return json.dumps(facts, sort_keys=True)
