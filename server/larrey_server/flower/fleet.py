"""Flower's Fleet service as a plain Flower client expects it, behind our identity.

The compatible path: activate, long poll, pull, push. A certificate speaks for exactly one node;
registration and removal of nodes are not a site's business and are refused.
"""

# ruff: noqa: N802 (the protocol names these methods)
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import grpc

from larrey_server.flower.engine import Engine
from larrey_server.flower.names import (
    ActivateNodeRequest,
    FleetServicer,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    PushObjectRequest,
    PushObjectResponse,
    iterate_object_tree,
    rpc_error_translator,
)

__all__ = ["LONG_POLL_S", "Fleet"]

LONG_POLL_S = 20.0
_MAX_OBJECTS = 4096  # of one reply message
_MAX_REPLY_BYTES = 256 << 20  # of all its objects: they lie in memory

SiteOf = Callable[[grpc.ServicerContext], str]
_MethodT = TypeVar("_MethodT", bound=Callable[..., Any])  # Any: Flower's methods differ in types


def _translated(method: _MethodT) -> _MethodT:
    @wraps(method)
    def call(self: Fleet, request: Any, context: grpc.ServicerContext) -> Any:  # Any: as above
        with rpc_error_translator(context, method.__name__):
            return method(self, request, context)

    return call  # type: ignore[return-value] # same signature as the method it wraps


def _own_node(method: _MethodT) -> _MethodT:
    """Refuse a request that names another site's node."""

    @wraps(method)
    def call(self: Fleet, request: Any, context: grpc.ServicerContext) -> Any:  # Any: as above
        self.check_node(request, context)
        return method(self, request, context)

    return _translated(call)  # type: ignore[return-value] # as above


@dataclass(slots=True)
class _Expected:
    """A reply whose objects are still coming."""

    session: str
    objects_left: int
    bytes_left: int
    run_id: int
    replied: str  # id of the message that it answers


class Fleet(FleetServicer):
    """Flower's servicer, with the certificate as identity and long polls."""

    def __init__(self, engine: Engine, site_of: SiteOf) -> None:
        super().__init__(engine.factory, engine.objects, True)
        self._engine = engine
        self._site_of = site_of
        self._lock = threading.Lock()
        self._expected: dict[int, _Expected] = {}  # by node: one reply at a time

    def check_node(self, request: Any, context: grpc.ServicerContext) -> int:  # Any: any request
        """Return the caller's node, which must be the one the request names."""
        claimed = request.node.node_id if hasattr(request, "node") else request.node_id
        node = self._engine.node_of(self._site_of(context))
        if claimed != node:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "wrong-node")
        return node

    def RegisterNode(
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:  # Any: never answers
        """Refuse: the registry is the coordinator's file."""
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not-allowed")

    def UnregisterNode(self, request: Any, context: grpc.ServicerContext) -> Any:  # Any: as above
        """Refuse: the registry is the coordinator's file."""
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not-allowed")

    @_translated
    def ActivateNode(self, request: ActivateNodeRequest, context: grpc.ServicerContext) -> Any:
        """Bring the caller's own node online, after a crash at once."""
        site = self._site_of(context)
        if request.public_key != self._engine.keys[site]:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "wrong-node")
        self._engine.state.deactivate_node(self._engine.node_of(site))
        return super().ActivateNode(request, context)

    @_own_node
    def PullMessages(
        self, request: PullMessagesRequest, context: grpc.ServicerContext
    ) -> PullMessagesResponse:
        """Wait for a message of the caller's node."""
        bell = self._engine.bell(self._site_of(context))
        guest, end = bell.enter(), time.monotonic() + LONG_POLL_S
        context.add_callback(bell.ring)
        while True:
            heard = bell.rings
            if bell.is_displaced(guest) or not context.is_active():
                return PullMessagesResponse()
            response = super().PullMessages(request, context)
            left = end - time.monotonic()
            if response.messages_list or left <= 0:
                return response
            bell.wait(guest, heard, left)

    @_own_node
    def PushMessages(
        self, request: PushMessagesRequest, context: grpc.ServicerContext
    ) -> PushMessagesResponse:
        """Register a reply; it counts once all its objects are here."""
        _check_reply(request, context)
        response = super().PushMessages(request, context)
        metadata = request.messages_list[0].metadata
        missing = len(set(response.objects_to_push))
        if not missing:  # not accepted, or sent before: a new reply is itself a new object
            return response
        with self._lock:
            self._expected[request.node.node_id] = _Expected(
                response.session_id,
                missing,
                _MAX_REPLY_BYTES,
                metadata.run_id,
                metadata.reply_to_message_id,
            )
        return response

    @_own_node
    def PushObject(self, request: PushObjectRequest, context: grpc.ServicerContext) -> Any:
        """Store one object of a reply."""
        size = len(request.object_content)
        with self._lock:
            expected = self._expected.get(request.node.node_id)
            if expected is None or expected.session != request.session_id:
                return PushObjectResponse(stored=False)
            is_too_large = expected.bytes_left < size
            expected.bytes_left -= size
        if is_too_large:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "reply-too-large")
        response = super().PushObject(request, context)
        if response.stored:
            self._count_down(request.node.node_id, expected)
        return response

    @_own_node
    def DeactivateNode(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Take the caller's node offline."""
        return super().DeactivateNode(request, context)

    @_own_node
    def SendNodeHeartbeat(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Keep the caller's node online."""
        return super().SendNodeHeartbeat(request, context)

    @_own_node
    def GetRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Return what a run is."""
        return super().GetRun(request, context)

    @_own_node
    def GetFab(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Fail as Flower does: no run here has an app bundle."""
        return super().GetFab(request, context)

    @_own_node
    def PullObject(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Return one object of a message."""
        return super().PullObject(request, context)

    @_own_node
    def ConfirmMessageReceived(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Free a message that arrived."""
        return super().ConfirmMessageReceived(request, context)

    def _count_down(self, node: int, expected: _Expected) -> None:
        with self._lock:
            expected.objects_left -= 1
            is_whole = expected.objects_left == 0
            if is_whole and self._expected.get(node) is expected:
                del self._expected[node]
        if is_whole:
            self._engine.replied(expected.run_id, expected.replied)


def _check_reply(request: PushMessagesRequest, context: grpc.ServicerContext) -> None:
    """Refuse anything but one reply from the caller's own node with a bounded object tree."""
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "malformed-reply")
    if request.messages_list[0].metadata.src_node_id != request.node.node_id:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "wrong-node")
    tree = request.message_object_trees[0]
    if sum(1 for _ in iterate_object_tree(tree)) > _MAX_OBJECTS:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "malformed-reply")
