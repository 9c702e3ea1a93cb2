"""Who of the operators called what, and how it ended: the coordinator's access log.

Wraps the handlers of `larrey.v1.Control`, outside every check, so that a refused call is on record
too; of callers who are no operators one line a minute and kind, so that they cannot fill the disk.
Arguments are not. Where the log cannot be written the call goes on.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from larrey_protocol.access_log import Access, AccessLog
from larrey_server.registry import Registry

__all__ = ["AccessRecorder"]

logger = logging.getLogger(__name__)
_DAY_S = 86400.0
_MINUTE_S = 60.0
_SERVICE = "/larrey.v1.Control/"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behavior = Callable[[Any, grpc.ServicerContext], Any]  # Any: messages differ by method


class AccessRecorder(grpc.ServerInterceptor):
    """Writes a line a call, and once a day deletes those older than ``months``."""

    def __init__(self, registry: Registry, months: int, now: Callable[[], float]) -> None:
        self._registry = registry
        self._months = months
        self._now = now
        self._log: AccessLog | None = None
        self._day = -1
        self._lock = threading.Lock()
        self._minute = -1
        self._strangers: set[tuple[str, str, str]] = set()  # actor, verb, code in this minute

    def open(self, folder: Path) -> None:
        """Begin to write, into a folder that exists."""
        self._log = AccessLog(folder)

    def close(self) -> None:
        """Close the file; calls that end later are not written."""
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler, with a record of its calls where operators call it."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or not method.startswith(_SERVICE):
            return handler
        requests = "stream" if handler.request_streaming else "unary"
        arity = f"{requests}_{'stream' if handler.response_streaming else 'unary'}"
        behavior: Behavior = getattr(handler, arity)
        wrap = self._stream if handler.response_streaming else self._single
        recorded = wrap(method.removeprefix(_SERVICE), behavior)
        pool = getattr(behavior, "experimental_thread_pool", None)
        if pool is not None:
            recorded.experimental_thread_pool = pool  # type: ignore[attr-defined]  # gRPC reads it
        build = getattr(grpc, f"{arity}_rpc_method_handler")
        made: Handler = build(recorded, handler.request_deserializer, handler.response_serializer)
        return made

    def _single(self, verb: str, behavior: Behavior) -> Behavior:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return behavior(request, context)
            finally:
                self._record(verb, context)

        return call

    def _stream(self, verb: str, behavior: Behavior) -> Behavior:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                yield from behavior(request, context)
            finally:
                self._record(verb, context)

        return call

    def _record(self, verb: str, context: grpc.ServicerContext) -> None:
        pem = bytes(context.auth_context().get("x509_pem_cert", [b""])[0])
        member = self._registry.by_certificate(pem)
        status = context.code()  # type: ignore[attr-defined]  # missing from grpcio's stubs
        code = "ok" if status in (None, grpc.StatusCode.OK) else status.name.lower()
        name = member.name if member else "unknown"
        access = Access(self._now(), name, verb, code.replace("_", "-"))
        is_stranger = member is None or member.role != "operator"
        if is_stranger and not self._is_news(access):
            return
        try:
            self._write(access)
        except sqlite3.Error:  # a command that stops something must not wait for a log
            logger.exception("call not logged verb=%s caller=%s code=%s", verb, name, access.code)

    def _is_news(self, access: Access) -> bool:
        """Return whether this is the first such call of a stranger in this minute."""
        key, minute = (access.actor, access.verb, access.code), int(access.at // _MINUTE_S)
        with self._lock:
            if minute != self._minute:
                self._minute, self._strangers = minute, set()
            is_news = key not in self._strangers
            self._strangers.add(key)
            return is_news

    def _write(self, access: Access) -> None:
        log = self._log
        if log is None:
            return
        if int(access.at // _DAY_S) != self._day:
            self._day = int(access.at // _DAY_S)
            log.purge(now=access.at, months=self._months)
        log.add(access)
