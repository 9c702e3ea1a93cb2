"""What stands around a node under attack: coordinator, trainer, log; and what is read of them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from larrey_protocol.errors import LarreyError
from larrey_protocol.models import phase_layout
from larrey_protocol.signed import Answer, Signed, open_signed
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.client.border.watched import WatchingPeer
from tests.client.node.peer import unwrap
from tests.client.node.trainers import SmallTrainer

__all__ = ["Coordinator", "QuickTrainer", "Troubles", "said"]


@dataclass
class Coordinator(WatchingPeer):
    """A peer that speaks the protocol and whose every word the attack chooses."""

    anchors: list[bytes] = field(default_factory=list)
    seen: int = -1  # revision of the list that the node has taken in
    said: str = ""  # set: takes nothing and says this
    has: int = 0  # set: says that it has so many bytes of every upload
    hangs: threading.Event = field(default_factory=threading.Event)  # set: models never end

    def Take(self, request: wire.TakeRequest, context: grpc.ServicerContext) -> Any:
        self.seen = request.studies_seen
        return super().Take(request, context)

    def List(self, request: wire.ListStudiesRequest, context: grpc.ServicerContext) -> Any:
        reply = super().List(request, context)
        reply.anchors.extend(self.anchors)
        return reply

    def Fetch(self, request: wire.FetchRequest, context: grpc.ServicerContext) -> Any:
        while self.hangs.is_set() and context.is_active():
            yield wire.Chunk(data=b"", total_bytes=1)
            threading.Event().wait(0.02)
        yield from super().Fetch(request, context)

    def Offer(self, request: wire.OfferRequest, context: grpc.ServicerContext) -> Any:
        reply = super().Offer(request, context)
        return wire.OfferReply(have_bytes=self.has) if self.has else reply

    def Give(self, request: wire.GiveRequest, context: grpc.ServicerContext) -> Any:
        reply = super().Give(request, context)
        return wire.GiveReply(accepted=False, code=self.said) if self.said else reply

    def Tell(self, request: wire.TellRequest, context: grpc.ServicerContext) -> wire.AnswerReply:
        self._keep("Studies/Tell", request)
        return wire.AnswerReply(recorded=True)

    def forget(self) -> None:
        """Tell no more of what was told: the node keeps it."""
        for told in (self.proposals, self.orders, self.permits, self.anchors, self.ended):
            told.clear()


class QuickTrainer(SmallTrainer):
    """Small updates that never grow."""

    def _update(self, study: Study) -> bytes:
        layout = phase_layout(study, self.trained[-1].phase)
        value = 20.0 if self.trained[-1].phase != "train" else 1e-4 * (len(self.trained) % 7)
        return pack(layout, np.full(layout.size, value, np.float32))


class Troubles(logging.Handler):
    """Keeps the codes of errors that the node only logs."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.codes += re.findall(r"\[([a-z][a-z0-9-]+)\]", record.getMessage())
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, LarreyError):
                self.codes.append(value.code)


def said(method: str, data: bytes) -> Iterator[str]:
    """Yield what a request tells the coordinator: codes, and words for anything else."""
    match method:
        case "Exchange/Give":
            _, fields = unwrap(wire.GiveRequest.FromString(data))
            yield str(fields["code"]) or "update"
        case "Exchange/Store" | "Exchange/Offer":
            yield "update"
        case "Studies/Answer":
            signed = Signed.from_bytes(wire.AnswerRequest.FromString(data).answer)
            answer = open_signed(signed, Answer, signed.signer)
            yield answer.code or answer.decision
        case "Studies/Tell":
            yield Signed.from_bytes(wire.TellRequest.FromString(data).document).kind
        case _:
            return  # polls and fetches hold what the coordinator itself said
