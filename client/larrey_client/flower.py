"""Flower's message forms at the hospital: read a request, write a reply. The agent's only flwr use.

A request is a Flower Message whose content is one ConfigRecord ``larrey``; it holds digests and
numbers, never tensors. What a coordinator sends is read strictly: limited in size, content hashed
against its own ids, and only the three record types that a request is made of are ever inflated.
`PRIVATE_NAMES` lists what is used beyond Flower's public API; a contract test holds it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")  # before flwr

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf.message import DecodeError

from larrey_client.task import Task
from larrey_protocol.canonical import DIGEST
from larrey_protocol.errors import Refusal, TransportError
from larrey_protocol.v1 import larrey_pb2 as wire

__all__ = ["FLOWER_VERSION", "PRIVATE_NAMES", "Incoming", "make_give", "open_give", "open_take"]

FLOWER_VERSION = "1.41.0"
PRIVATE_NAMES = (
    "flwr.app.message.remove_content_from_message",
    "flwr.common.serde.message_from_proto",
    "flwr.common.serde.message_to_proto",
    "flwr.proto.fleet_pb2.PullMessagesResponse",
    "flwr.proto.fleet_pb2.PushMessagesRequest",
    "flwr.proto.message_pb2.ObjectTree",
    "flwr.proto.node_pb2.Node",
    "flwr.supercore.inflatable.inflatable_object.get_all_nested_objects",
    "flwr.supercore.inflatable.inflatable_object.get_object_id",
    "flwr.supercore.inflatable.inflatable_object.get_object_tree",
    "flwr.supercore.inflatable.inflatable_object.iterate_object_tree",
    "flwr.supercore.inflatable.inflatable_object.no_object_id_recompute",
    "flwr.supercore.inflatable.inflatable_utils.inflate_object_from_contents",
)
_RECORD = "larrey"
_TYPES = (b"Message ", b"RecordDict ", b"ConfigRecord ")
_FIELDS = {field.name for field in fields(Task)}
_MAX_OBJECTS = 8
_MAX_OBJECT_BYTES = 1 << 16
_LONGEST_S = 7 * 86400.0  # the longest deadline that a study can have; more breaks timers


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request and the Flower message it came in, which the reply must name."""

    message: Message
    task: Task | None  # None: the message is not a request that this node understands


def open_take(reply: wire.TakeReply) -> Incoming | None:
    """Return the request in a reply to Take, None when there was no work.

    Raises:
        TransportError: ``message-malformed`` when not even the envelope can be read.
    """
    if not reply.messages:
        return None
    try:
        pulled = PullMessagesResponse.FromString(reply.messages)
        if not pulled.messages_list:
            return None
        envelope = message_from_proto(pulled.messages_list[0])
    except (DecodeError, ValueError, KeyError, IndexError, TypeError) as error:
        raise TransportError("message-malformed", "the message cannot be read") from error
    try:
        record = _content(pulled.message_object_trees[0], reply.objects)
        return Incoming(envelope, _task(record))
    except (DecodeError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return Incoming(envelope, None)


def make_give(
    incoming: Incoming, *, update: str, code: str, receipt: bytes, anchor: bytes = b""
) -> wire.GiveRequest:
    """Return the reply: the digest of the stored update with receipt and anchor, or a code alone.

    ``anchor`` says where the site's ledger stands, for the coordinator and other sites to keep.
    """
    task = incoming.task
    values: dict[str, str | int] = {"update": update, "code": code}
    if task is not None:
        values |= {"study": task.study, "round": task.round, "phase": task.phase}
        values |= {"attempt": task.attempt, "model": task.model}
    content = RecordDict({_RECORD: ConfigRecord(values)})  # type: ignore[arg-type]
    message = Message(content, reply_to=incoming.message)
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        objects, tree = get_all_nested_objects(message), get_object_tree(message)
        request = PushMessagesRequest(
            node=Node(node_id=message.metadata.src_node_id),
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[tree],
            clientapp_runtime_list=[0.0],
        )
        parts = [wire.FlowerObject(id=key, content=obj.deflate()) for key, obj in objects.items()]
    return wire.GiveRequest(
        message=request.SerializeToString(), objects=parts, receipt=receipt, anchor=anchor
    )


def open_give(request: wire.GiveRequest) -> tuple[PushMessagesRequest, dict[str, object]]:
    """Return the envelope and the record of a reply, all of what its objects hold.

    Raises:
        Refusal: ``egress-not-listed`` if they hold anything else.
    """
    try:
        pushed = PushMessagesRequest.FromString(request.message)
        (tree,), (envelope,) = pushed.message_object_trees, pushed.messages_list
        message = _whole(tree, {part.id: part.content for part in request.objects})
        (record,) = message.content.config_records.items()
        inner = message_to_proto(remove_content_from_message(message)).metadata
    except (DecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refusal("egress-not-listed", "a reply holds more than its record", "") from error
    inner.message_id = envelope.metadata.message_id  # the one that its own bytes cannot hold
    if inner != envelope.metadata or record[0] != _RECORD or len(message.content) != 1:
        raise Refusal("egress-not-listed", "a reply's message is not its envelope's", "")
    return pushed, dict(record[1])


def _whole(tree: ObjectTree, found: dict[str, bytes]) -> Message:
    """Return the message whose objects are exactly these, each checked against its id."""
    if {node.object_id for node in iterate_object_tree(tree)} != set(found):
        raise ValueError("the objects are not those of the message")
    for key, content in found.items():
        if not content.startswith(_TYPES) or get_object_id(content) != key:
            raise ValueError("an object is not what its id says")
    message = inflate_object_from_contents(tree.object_id, found)
    if not isinstance(message, Message) or message.has_error():
        raise TypeError("not a message")
    return message


def _content(tree: ObjectTree, objects: Iterable[wire.FlowerObject]) -> ConfigRecord:
    """Return the request's record from objects that are what their ids say."""
    found = {part.id: part.content for part in objects}
    named = {node.object_id for node in iterate_object_tree(tree)}
    if named != set(found) or len(found) > _MAX_OBJECTS:
        raise ValueError("the objects are not those of the message")
    for key, content in found.items():
        is_expected = len(content) <= _MAX_OBJECT_BYTES and content.startswith(_TYPES)
        if not is_expected or get_object_id(content) != key:
            raise ValueError("an object is not what its id says")
    message = inflate_object_from_contents(tree.object_id, found)
    if not isinstance(message, Message):
        raise TypeError("not a message")
    record = message.content[_RECORD]
    if not isinstance(record, ConfigRecord) or len(message.content) != 1:
        raise TypeError("not one config record")
    return record


def _task(record: ConfigRecord) -> Task:
    if set(record) != _FIELDS:
        raise ValueError("not the fields of a request")
    return Task(
        study=_digest(record["study"]),
        round=_count(record["round"]),
        phase=_text(record["phase"]),
        attempt=_count(record["attempt"]),
        model=_digest(record["model"]),
        model_bytes=_count(record["model_bytes"]),
        deadline_s=_seconds(record["deadline_s"]),
        peer_head=_text(record["peer_head"]),
        applied=_count(record["applied"]),
    )


def _digest(value: object) -> str:
    text = _text(value)
    if not DIGEST.fullmatch(text):
        raise ValueError("not a digest")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError("not a short text")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value > _LONGEST_S:
        raise ValueError("not a number of seconds")
    return float(value)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError("not a count")
    return value
