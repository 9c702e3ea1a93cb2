"""Hands Flower messages over whole: one message with all its objects in one piece, each way.

The same state calls as Flower's Fleet service makes (`fleet`), without a call per object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from larrey_protocol.errors import Refusal
from larrey_server.flower.engine import Engine
from larrey_server.flower.names import (
    ConfirmMessageReceivedRequest,
    FlowerError,
    Node,
    PullMessagesRequest,
    PushMessagesRequest,
    PushObjectRequest,
    fleet_handlers,
    iterate_object_tree,
)

__all__ = ["MAX_OBJECT_BYTES", "Parcel", "Post"]

MAX_OBJECT_BYTES = 64 << 10  # of all objects of a reply: strings and numbers, no tensors
_MAX_OBJECTS = 16


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message for a site with everything its object tree names."""

    message_id: str
    run_id: int
    payload: bytes  # flwr.proto.PullMessagesResponse
    objects: tuple[tuple[str, bytes], ...]


class Post:
    """Takes messages out of Flower's state and puts replies in."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(self, site: str) -> Parcel | None:
        """Return the site's next message, None if there is none."""
        state, store = self._engine.state, self._engine.store
        node = Node(node_id=self._engine.node_of(site))
        response = fleet_handlers.pull_messages(PullMessagesRequest(node=node), state, store)
        if not response.messages_list:
            return None
        metadata = response.messages_list[0].metadata
        names = dict.fromkeys(
            part.object_id for part in iterate_object_tree(response.message_object_trees[0])
        )
        objects = tuple((n, state.get_object(metadata.run_id, n) or b"") for n in names)
        if not all(content for _, content in objects):
            return None  # withdrawn in this very moment
        return Parcel(metadata.message_id, metadata.run_id, response.SerializeToString(), objects)

    def confirm(self, site: str, parcel: Parcel) -> None:
        """Free the objects of a message that was handed over.

        Raises:
            Refusal: ``not-expected`` when its run ended meanwhile.
        """
        request = ConfirmMessageReceivedRequest(
            node=Node(node_id=self._engine.node_of(site)),
            run_id=parcel.run_id,
            message_object_id=parcel.message_id,
        )
        try:
            fleet_handlers.confirm_message_received(request, self._engine.state, self._engine.store)
        except FlowerError as error:
            raise _late() from error

    def open(self, site: str, payload: bytes) -> PushMessagesRequest:
        """Return a reply's envelope after checking that it is one message of this site.

        Raises:
            Refusal: ``malformed-reply`` or ``wrong-node``.
        """
        try:
            request = PushMessagesRequest.FromString(payload)
        except DecodeError as error:
            raise _malformed("is not a Flower message") from error
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise _malformed("is not exactly one message")
        node = self._engine.node_of(site)
        if {request.node.node_id, request.messages_list[0].metadata.src_node_id} != {node}:
            raise Refusal("wrong-node", f"the reply of {site} names another node")
        return request

    def give(self, request: PushMessagesRequest, objects: Mapping[str, bytes]) -> None:
        """Store a complete reply in Flower's state.

        Raises:
            Refusal: ``malformed-reply``, or ``not-expected`` when nobody waits for it any more.
        """
        if len(objects) > _MAX_OBJECTS or sum(map(len, objects.values())) > MAX_OBJECT_BYTES:
            raise _malformed("has too many or too large objects")
        run_id = request.messages_list[0].metadata.run_id
        try:
            pushed = fleet_handlers.push_messages(request, self._engine.state)
            for name in dict.fromkeys(pushed.objects_to_push):
                part = PushObjectRequest(
                    node=request.node,
                    run_id=run_id,
                    session_id=pushed.session_id,
                    object_id=name,
                    object_content=objects.get(name, b""),
                )
                if not fleet_handlers.push_object(part, self._engine.state).stored:
                    raise _malformed("lacks an object that it names")
        except (FlowerError, KeyError) as error:  # KeyError: a run that is unknown
            raise _late() from error

    def discard(self, request: PushMessagesRequest) -> None:
        """Free what came of a reply that does not count, and the message that it answers."""
        metadata = request.messages_list[0].metadata
        for name in (metadata.message_id, metadata.reply_to_message_id):
            self._engine.store.delete(name)
        self._engine.state.delete_messages({metadata.reply_to_message_id})


def _late() -> Refusal:
    return Refusal("not-expected", "nobody waits for this reply any more", "Drop it.")


def _malformed(what: str) -> Refusal:
    return Refusal("malformed-reply", f"the reply {what}", "Update the node's software.")
