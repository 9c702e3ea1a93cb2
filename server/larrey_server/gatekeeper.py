"""Decides before any handler runs, or any request is read, whether a caller may make a call.

Identity is the client certificate's public key; rights follow from the role alone: sites speak
Exchange, Studies and Flower's Fleet and renew their certificate, operators speak Control, either
may ask for health. Who holds an invitation may join, and nothing else. When a membership ends, its
calls in flight are cancelled at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc

from larrey_protocol.disk import disk_code
from larrey_server.metrics import Metrics
from larrey_server.registry import Member, Registry

__all__ = ["CONTROL", "MAX_CALLS", "MAX_WATCHES", "POOLS", "Gatekeeper"]

logger = logging.getLogger(__name__)

_RIGHTS = {
    "larrey.v1.Exchange": frozenset({"site"}),
    "larrey.v1.Studies": frozenset({"site"}),
    "flwr.proto.Fleet": frozenset({"site"}),
    "larrey.v1.Control": frozenset({"operator"}),
    "grpc.health.v1.Health": frozenset({"site", "operator"}),
    "larrey.v1.Enrolment/Join": frozenset({"invited"}),
    "larrey.v1.Enrolment/Renew": frozenset({"site"}),
}
# Calls that hold a thread for long, by kind; each kind has a pool of its own. The others, health
# among them, are of the kind "control".
_KINDS = {
    "/larrey.v1.Exchange/Take": "poll",
    "/flwr.proto.Fleet/PullMessages": "poll",
    "/larrey.v1.Exchange/Fetch": "tensors",
    "/larrey.v1.Exchange/Store": "tensors",
    "/larrey.v1.Control/Model": "tensors",
    "/flwr.proto.Fleet/PushObject": "tensors",
    "/flwr.proto.Fleet/PullObject": "tensors",
    "/larrey.v1.Control/Watch": "watch",
    "/larrey.v1.Control/Audit": "watch",
    "/larrey.v1.Control/Documents": "watch",
}
CONTROL, POOLS = "control", ("poll", "tensors", "watch")
_UNTIMED = frozenset({"poll", "watch"})  # they wait
_ABSENT = frozenset({"/grpc.health.v1.Health/Watch"})  # would hold a thread for ever
MAX_CALLS = 8  # of one caller and kind at once; a node needs three in all
MAX_WATCHES = 50  # of one operator, whom several people may share

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior = Callable[[Any, grpc.ServicerContext], Any]  # Any: messages differ by method


class Gatekeeper(grpc.ServerInterceptor):
    """Wraps every handler with identity, rights and counting."""

    def __init__(
        self, registry: Registry, metrics: Metrics, pools: Mapping[str, ThreadPoolExecutor]
    ) -> None:
        """Take the pool of each kind of call in `POOLS`; the server's own serves the others."""
        self._registry = registry
        self._metrics = metrics
        self._pools = pools
        self._wrapped: dict[str, Handler] = {}
        self._lock = threading.Lock()
        self._running: Counter[tuple[str, str]] = Counter()  # calls by caller and kind
        self._contexts: dict[str, set[grpc.ServicerContext]] = {}  # of the calls of each site
        # Of the calls in flight, whose handlers ask again who calls: a connection has one for good.
        self._certificates: dict[grpc.ServicerContext, bytes] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the guarded handler of a method."""
        method = handler_call_details.method
        if method in _ABSENT:
            return None
        if method not in self._wrapped:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._guard(method, handler)
        return self._wrapped[method]

    def caller(self, context: grpc.ServicerContext) -> Member:
        """Return who calls; aborts with UNAUTHENTICATED if the certificate is nobody's."""
        member = self._registry.by_certificate(self.certificate(context))
        if member is None:
            self._metrics.auth_failure("unknown_key")
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not-registered")
        return member

    def certificate(self, context: grpc.ServicerContext) -> bytes:
        """Return the certificate whose key the caller proved to hold, PEM; empty for none."""
        pem = self._certificates.get(context)
        return _certificate(context) if pem is None else pem

    def site_of(self, context: grpc.ServicerContext) -> str:
        """Return the calling site's name."""
        return self.caller(context).name

    def end_calls(self, site: str) -> None:
        """Cancel whatever a site has in flight; its membership must have ended before."""
        with self._lock:
            contexts = [
                context
                for role in ("site", "invited")
                for context in self._contexts.get(f"{role} {site}", ())
            ]
        for context in contexts:
            context.cancel()

    def calls(self) -> dict[str, int]:
        """Return how many calls each caller has in flight."""
        found: Counter[str] = Counter()
        with self._lock:
            for (caller, _), count in self._running.items():
                found[caller] += count
        return dict(found)

    def _guard(self, method: str, handler: Handler) -> Handler:
        """Return ``handler`` behind the checks, in the pool that suits it.

        Every method is served as if requests streamed in: gRPC reads a single request before it
        calls the handler, and would let anybody hold a thread with a request that never comes.
        """
        arity = f"{_way(handler.request_streaming)}_{_way(handler.response_streaming)}"
        behavior: Behavior = getattr(handler, arity)
        if not handler.request_streaming:
            behavior = _with_one(behavior)
        wrap = self._streaming if handler.response_streaming else self._single
        checked = wrap(method, behavior)
        if method in _KINDS:
            checked.experimental_thread_pool = self._pools[_KINDS[method]]  # type: ignore[attr-defined]
        build = getattr(grpc, f"stream_{_way(handler.response_streaming)}_rpc_method_handler")
        guarded: Handler = build(checked, handler.request_deserializer, handler.response_serializer)
        return guarded

    def _single(self, method: str, behavior: Behavior) -> Behavior:
        record = self._metrics.call_recorder(method, timed=_kind(method) not in _UNTIMED)

        def call(requests: Any, context: grpc.ServicerContext) -> Any:
            start = time.perf_counter()
            try:
                with self._admitted(method, context) as caller:
                    return behavior(self._counted(caller, requests), context)
            finally:
                record(context, time.perf_counter() - start)

        return call

    def _streaming(self, method: str, behavior: Behavior) -> Behavior:
        record = self._metrics.call_recorder(method, timed=_kind(method) not in _UNTIMED)

        def call(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            start = time.perf_counter()
            try:
                with self._admitted(method, context) as caller:
                    yield from behavior(self._counted(caller, requests), context)
            finally:
                record(context, time.perf_counter() - start)

        return call

    def _counted(self, caller: Member, requests: Iterator[Any]) -> Iterator[Any]:
        """Return the requests as they come; what a site sends is counted."""
        if caller.role != "site":
            return requests
        return _counting(requests, self._metrics.byte_counter(caller.name))

    @contextmanager
    def _admitted(self, method: str, context: grpc.ServicerContext) -> Iterator[Member]:
        self._certificates[context] = _certificate(context)
        try:
            with self._placed(method, context) as caller:
                yield caller
        finally:
            del self._certificates[context]

    @contextmanager
    def _placed(self, method: str, context: grpc.ServicerContext) -> Iterator[Member]:
        caller = self.caller(context)
        service = method[1:].partition("/")[0]
        rights = _RIGHTS.get(method[1:], _RIGHTS.get(service, frozenset()))
        if caller.role not in rights:
            self._metrics.auth_failure("not_member")
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not-allowed")
        place, kind = f"{caller.role} {caller.name}", _kind(method)
        if not self._enter(place, kind, context):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-calls")
        if caller.role == "site" and (end := self._registry.end_of(self.certificate(context))):
            self._metrics.site_certificate(caller.name, end)
        try:
            yield self.caller(context)  # once more: the membership may just have ended
        except grpc.RpcError:  # the caller went away
            raise
        except Exception as error:  # a call's guard: gRPC would send the text, paths and all
            if context.code() is None:  # type: ignore[attr-defined] # missing from grpcio's stubs
                logger.exception("failed method=%s caller=%s", method, caller.name)
                context.abort(*_fault(error))
            raise
        finally:
            self._leave(place, kind, context)

    def _enter(self, place: str, kind: str, context: grpc.ServicerContext) -> bool:
        with self._lock:
            if self._running[place, kind] >= _most(kind):
                return False
            self._running[place, kind] += 1
            self._contexts.setdefault(place, set()).add(context)
            return True

    def _leave(self, place: str, kind: str, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._running[place, kind] -= 1
            if not self._running[place, kind]:
                del self._running[place, kind]
            self._contexts[place].discard(context)
            if not self._contexts[place]:
                del self._contexts[place]


def _certificate(context: grpc.ServicerContext) -> bytes:
    return bytes(context.auth_context().get("x509_pem_cert", [b""])[0])


def _kind(method: str) -> str:
    return _KINDS.get(method, CONTROL)


def _most(kind: str) -> int:
    return MAX_WATCHES if kind == "watch" else MAX_CALLS


def _way(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _with_one(behavior: Behavior) -> Behavior:
    """Return what waits for one request and answers it."""

    def call(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        request = next(requests, None)
        if request is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request-missing")
        return behavior(request, context)

    return call


def _counting(parts: Iterator[Any], count: Callable[[float], None]) -> Iterator[Any]:
    for part in parts:
        count(part.ByteSize())
        yield part


def _fault(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Return what a caller may know of our own failure."""
    if code := disk_code(error):
        return grpc.StatusCode.RESOURCE_EXHAUSTED, code
    return grpc.StatusCode.INTERNAL, "internal-error"
