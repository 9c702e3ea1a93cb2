"""An in-memory coordinator: larrey.v1 over real mutual TLS on loopback, scripted by the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from larrey_client.task import Task
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.certificates import Credential
from larrey_protocol.models import initial_parameters, model_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs

NODE_ID = 77
RUN_ID = 5


def wait_until(condition: Any, timeout_s: float = 10.0) -> None:
    """Poll a condition with a deadline."""
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("the condition did not come true in time")
        pause.wait(0.005)


def wrap(record: dict[str, Any]) -> wire.TakeReply:
    """Return a request as it travels."""
    metadata = Metadata(RUN_ID, "", 1, NODE_ID, "", "1", time.time(), 3600.0, "train")
    message = make_message(metadata, RecordDict({"larrey": ConfigRecord(record)}))
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        objects, tree = get_all_nested_objects(message), get_object_tree(message)
        pulled = PullMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[tree],
        )
        parts = [wire.FlowerObject(id=k, content=o.deflate()) for k, o in objects.items()]
    return wire.TakeReply(messages=pulled.SerializeToString(), objects=parts)


def unwrap(request: wire.GiveRequest) -> tuple[Message, dict[str, Any]]:
    """Return the reply's message without content, and its record."""
    pushed = PushMessagesRequest.FromString(request.message)
    root = pushed.message_object_trees[0].object_id
    contents = {part.id: part.content for part in request.objects}
    whole = inflate_object_from_contents(root, contents)
    if not isinstance(whole, Message):
        raise TypeError("not a message")
    return message_from_proto(pushed.messages_list[0]), dict(whole.content["larrey"])


@dataclass
class Given:
    """One reply that the peer received."""

    fields: dict[str, Any]
    receipt: bytes
    message: Message
    anchor: bytes = b""


@dataclass
class Peer(stubs.ExchangeServicer, stubs.StudiesServicer):
    """What the coordinator knows and received; tests read and write it."""

    port: int = 0
    proposals: list[bytes] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    rosters: list[bytes] = field(default_factory=list)  # signed Rosters and KeyChanges
    permits: list[bytes] = field(default_factory=list)
    orders: list[bytes] = field(default_factory=list)
    anchors: list[bytes] = field(default_factory=list)
    witness: list[bytes] = field(default_factory=list)  # beside every request
    revision: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    given: list[Given] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)
    takes: int = 0
    opens_at: float = 0.0  # as the last poll said
    cuts: int = 0  # how many transfers to break off in the middle
    supersedes: int = 0  # how many uploads to end because the same bytes come from elsewhere
    stalls: list[threading.Event] = field(default_factory=list)  # each holds one upload till set
    stalled: int = 0  # uploads that were held
    stalled_models: dict[str, threading.Event] = field(default_factory=dict)  # hold a download
    fetch_offsets: list[int] = field(default_factory=list)
    store_offsets: list[int] = field(default_factory=list)
    _work: list[wire.TakeReply] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _server: Any = None

    def start(self, credential: Credential, authority: bytes) -> Peer:
        server = grpc.server(ThreadPoolExecutor(8))
        stubs.add_ExchangeServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        stubs.add_StudiesServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        tls = grpc.ssl_server_credentials(
            [(credential.key, credential.certificate)], authority, require_client_auth=True
        )
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", tls)
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        with self._changed:
            self._changed.notify_all()
        self._server.stop(0).wait()

    def propose(self, *documents: bytes) -> None:
        with self._changed:
            self.proposals += documents
            self.revision += 1
            self._changed.notify_all()

    def tell(self, **documents: bytes) -> None:
        """Pass on one more document of each kind, e.g. ``rosters``, ``permits``, ``anchors``."""
        with self._changed:
            for kind, document in documents.items():
                getattr(self, kind).append(document)
            self.revision += 1
            self._changed.notify_all()

    def end(self, study: str) -> None:
        with self._changed:
            self.ended.append(study)
            self.revision += 1
            self._changed.notify_all()

    def push(self, reply: wire.TakeReply) -> None:
        with self._changed:
            self._work.append(reply)
            self._changed.notify_all()

    def send(self, task: Task) -> None:
        """Send one request and do not wait."""
        self.push(wrap(asdict(task)))

    def request(self, task: Task, **changes: Any) -> Given:
        """Send one request and return the reply to it."""
        count = len(self.given)
        self.push(wrap(asdict(task) | changes))
        wait_until(lambda: len(self.given) > count)
        return self.given[count]

    def first_task(self, study: Study, round_number: int = 1) -> Task:
        """Return the request for a round, from the study's starting point."""
        layout = model_layout(study)
        flat = initial_parameters(study)
        flat[0] = round_number  # so that every round has another input
        model = pack(layout, flat)
        digest = digest_bytes(model)
        self.blobs[digest] = model
        return Task(
            study=study.digest,
            round=round_number,
            phase="train",
            attempt=1,
            model=digest,
            model_bytes=layout.nbytes,
            deadline_s=20.0,
            peer_head="4:sha256:" + "a" * 64,
        )

    def Take(self, request: wire.TakeRequest, context: grpc.ServicerContext) -> wire.TakeReply:
        self.takes += 1
        self.opens_at = request.opens_at
        context.add_callback(self._wake)
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._work or request.studies_seen != self.revision or not context.is_active()
                ),
                timeout=0.3,
            )
            reply = wire.TakeReply()
            if self._work and context.is_active():
                reply.CopyFrom(self._work.pop(0))
                reply.witness.extend(self.witness)
            reply.studies_revision = self.revision
        return reply

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def Fetch(
        self, request: wire.FetchRequest, context: grpc.ServicerContext
    ) -> Iterator[wire.Chunk]:
        self.fetch_offsets.append(request.offset)
        if request.digest not in self.blobs:
            context.abort(grpc.StatusCode.NOT_FOUND, "not-offered")
        data = self.blobs[request.digest]
        if stall := self.stalled_models.get(request.digest):
            stall.wait(10)
        middle = max(len(data) // 2, request.offset)
        yield wire.Chunk(data=data[request.offset : middle], total_bytes=len(data))
        if self.cuts:
            self.cuts -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        yield wire.Chunk(data=data[middle:], total_bytes=len(data))

    def Offer(self, request: wire.OfferRequest, context: grpc.ServicerContext) -> wire.OfferReply:
        have = len(self.uploads.get(request.digest, b""))
        return wire.OfferReply(have_bytes=have, complete=have == request.total_bytes)

    def Store(
        self, request_iterator: Iterator[wire.StorePart], context: grpc.ServicerContext
    ) -> wire.OfferReply:
        total, digest = 0, ""
        for number, part in enumerate(request_iterator):
            digest, total = part.digest, part.total_bytes
            if number == 0:
                self.store_offsets.append(part.offset)
                self._stall()
            kept = self.uploads.get(digest, b"")[: part.offset]
            data = part.data
            if self.supersedes:
                self.supersedes -= 1
                context.abort(grpc.StatusCode.ABORTED, "upload-superseded")
            if self.cuts:
                self.cuts -= 1
                self.uploads[digest] = kept + data[: len(data) // 2]
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            self.uploads[digest] = kept + data
        have = len(self.uploads[digest])
        return wire.OfferReply(have_bytes=have, complete=have == total)

    def Give(self, request: wire.GiveRequest, context: grpc.ServicerContext) -> wire.GiveReply:
        message, fields = unwrap(request)
        self.given.append(Given(fields, request.receipt, message, request.anchor))
        return wire.GiveReply(accepted=True)

    def List(
        self, request: wire.ListStudiesRequest, context: grpc.ServicerContext
    ) -> wire.ListStudiesReply:
        return wire.ListStudiesReply(
            proposals=self.proposals,
            ended=self.ended,
            rosters=self.rosters,
            permits=self.permits,
            orders=self.orders,
            anchors=self.anchors,
            revision=self.revision,
        )

    def Answer(
        self, request: wire.AnswerRequest, context: grpc.ServicerContext
    ) -> wire.AnswerReply:
        self.answers.append(request.answer)
        return wire.AnswerReply(recorded=True)

    def Tell(self, request: wire.TellRequest, context: grpc.ServicerContext) -> wire.AnswerReply:
        self.told.append(request.document)
        return wire.AnswerReply(recorded=True)

    def stall(self) -> threading.Event:
        """Return what lets the next upload come in; it waits for that."""
        self.stalls.append(threading.Event())
        return self.stalls[-1]

    def _stall(self) -> None:
        if self.stalls:
            stall = self.stalls.pop(0)
            self.stalled += 1
            stall.wait(10)

    def order(self, *documents: bytes) -> None:
        """Pass orders on and ring the bell."""
        with self._changed:
            self.orders += documents
            self.revision += 1
            self._changed.notify_all()
