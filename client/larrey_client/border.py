"""The one point through which every request of this node passes: checked, written down, sent.

An interceptor on the node's only channel, so that a call that somebody adds later passes it too.
What is not on the list of `larrey_protocol.egress_list` is refused here with ``egress-not-listed``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from larrey_client.egress_log import EgressLog, Sent
from larrey_client.flower import open_give
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.egress import Outgoing, check_flower, check_outgoing
from larrey_protocol.v1 import larrey_pb2 as wire

__all__ = ["Border"]

_NOTHING = Outgoing()
Continue = Callable[[Any, Any], Any]  # Any: gRPC's own types differ by method


class Border(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Checks and records whatever is sent; ``spool`` is where uploaded blobs lie."""

    def __init__(self, log: EgressLog, spool: Path, now: Callable[[], float]) -> None:
        self._log = log
        self._spool = spool
        self._now = now
        self._local = threading.local()

    @contextmanager
    def about(self, study: str, round_number: int, phase: str) -> Iterator[None]:
        """Say what this thread's requests are about, for those that do not say it themselves."""
        self._local.about = Outgoing(study, round_number, phase)
        try:
            yield
        finally:
            self._local.about = _NOTHING

    def intercept_unary_unary(self, continuation: Continue, details: Any, request: Any) -> Any:
        """Pass one request on."""
        self._pass(details.method, request)
        return continuation(details, request)

    def intercept_unary_stream(self, continuation: Continue, details: Any, request: Any) -> Any:
        """Pass one request on."""
        self._pass(details.method, request)
        return continuation(details, request)

    def intercept_stream_unary(self, continuation: Continue, details: Any, requests: Any) -> Any:
        """Pass the parts on as they are asked for."""
        return continuation(details, self._parts(details.method, self._said(), requests))

    def intercept_stream_stream(self, continuation: Continue, details: Any, requests: Any) -> Any:
        """Pass the parts on as they are asked for."""
        return continuation(details, self._parts(details.method, self._said(), requests))

    def _pass(self, method: str, request: Any) -> None:
        about = check_outgoing(method, request)
        if isinstance(request, wire.GiveRequest):
            about = check_flower(*open_give(request))
        data = request.SerializeToString(deterministic=True)
        sent = self._sent(method, about if about.study else self._said(about.code), data)
        if isinstance(request, wire.TakeRequest | wire.ListStudiesRequest):
            self._log.poll(sent, data)
        else:
            self._log.add(sent, data)

    def _parts(self, method: str, about: Outgoing, parts: Iterator[Any]) -> Iterator[Any]:
        """Yield each part once it is written down; the first one opens the row."""
        seq = 0
        for part in parts:
            check_outgoing(method, part)
            if not seq:
                sent = replace(self._sent(method, about, b""), digest=part.digest)
                blob = self._spool / part.digest.removeprefix("sha256:")
                seq = self._log.add_blob(sent, blob)
            self._log.count_part(seq, part.ByteSize())
            yield part

    def _sent(self, method: str, about: Outgoing, data: bytes) -> Sent:
        return Sent(
            at=self._now(),
            method=method.removeprefix("/larrey.v1."),
            study=about.study,
            round=about.round,
            phase=about.phase,
            code=about.code,
            bytes=len(data),
            digest=digest_bytes(data),
        )

    def _said(self, code: str = "") -> Outgoing:
        about: Outgoing = getattr(self._local, "about", _NOTHING)
        return replace(about, code=code)
