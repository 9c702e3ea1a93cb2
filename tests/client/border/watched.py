"""The in-memory coordinator, keeping the very bytes of every request that reached it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from larrey_protocol.v1 import larrey_pb2 as wire
from tests.client.node.peer import Peer


@dataclass
class WatchingPeer(Peer):
    """Counts and keeps what it receives, by method."""

    received: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def received_bytes(self) -> int:
        return sum(len(data) for _, data in self.received)

    def Take(self, request: wire.TakeRequest, context: grpc.ServicerContext) -> Any:
        return super().Take(self._keep("Exchange/Take", request), context)

    def Fetch(self, request: wire.FetchRequest, context: grpc.ServicerContext) -> Any:
        return super().Fetch(self._keep("Exchange/Fetch", request), context)

    def Offer(self, request: wire.OfferRequest, context: grpc.ServicerContext) -> Any:
        return super().Offer(self._keep("Exchange/Offer", request), context)

    def Give(self, request: wire.GiveRequest, context: grpc.ServicerContext) -> Any:
        return super().Give(self._keep("Exchange/Give", request), context)

    def List(self, request: wire.ListStudiesRequest, context: grpc.ServicerContext) -> Any:
        return super().List(self._keep("Studies/List", request), context)

    def Answer(self, request: wire.AnswerRequest, context: grpc.ServicerContext) -> Any:
        return super().Answer(self._keep("Studies/Answer", request), context)

    def Store(
        self, request_iterator: Iterator[wire.StorePart], context: grpc.ServicerContext
    ) -> wire.OfferReply:
        parts = (self._keep("Exchange/Store", part) for part in request_iterator)
        return super().Store(parts, context)

    def _keep(self, method: str, request: Any) -> Any:
        self.received.append((method, request.SerializeToString()))
        return request
