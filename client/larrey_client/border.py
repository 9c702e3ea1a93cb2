"""The one point through which every request of this node passes: checked, written down, sent.

It stands around the node's only channel, so that a call that somebody adds later passes it too.
What is not on the list of `larrey_protocol.egress_list` is refused here with ``egress-not-listed``.
Not a gRPC interceptor: grpcio makes such a call's machinery anew each time, and grpcio 1.85 crashes
the process when it does so on a channel that another thread has closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc

from larrey_client.egress_log import EgressLog, Sent
from larrey_client.flower import open_give
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.egress import Outgoing, check_flower, check_outgoing
from larrey_protocol.v1 import larrey_pb2 as wire

__all__ = ["Border"]

_NOTHING = Outgoing()
Call = Callable[..., Any]  # Any: gRPC's own types differ by method


class Border:
    """Checks and records whatever is sent; ``spool`` is where uploaded blobs lie."""

    def __init__(self, log: EgressLog, spool: Path, now: Callable[[], float]) -> None:
        self._log = log
        self._spool = spool
        self._now = now
        self._local = threading.local()

    def around(self, channel: grpc.Channel) -> grpc.Channel:
        """Return the channel with this border around it."""
        return cast(grpc.Channel, _Guarded(channel, self))

    @contextmanager
    def about(self, study: str, round_number: int, phase: str) -> Iterator[None]:
        """Say what this thread's requests are about, for those that do not say it themselves."""
        self._local.about = Outgoing(study, round_number, phase)
        try:
            yield
        finally:
            self._local.about = _NOTHING

    def let_through(self, method: str, request: Any) -> None:
        """Return once the request is checked and written down.

        Raises:
            Refusal: ``egress-not-listed``.
        """
        about = check_outgoing(method, request)
        if isinstance(request, wire.GiveRequest):
            about = check_flower(*open_give(request))
        data = request.SerializeToString(deterministic=True)
        about = about if about.study else self._said(about.code)
        sent = self._sent(method, about, digest_bytes(data), len(data))
        if isinstance(request, wire.TakeRequest | wire.ListStudiesRequest):
            self._log.poll(sent, data)
        else:
            self._log.add(sent, data)

    def let_parts_through(self, method: str, parts: Iterator[Any]) -> Iterator[Any]:
        """Return the parts of a stream, each checked and written down when it is asked for."""
        return self._parts(method, self._said(), parts)  # whose thread asks for them is gRPC's

    def _parts(self, method: str, about: Outgoing, parts: Iterator[Any]) -> Iterator[Any]:
        seq = 0
        for part in parts:
            check_outgoing(method, part)
            size = part.ByteSize()
            if seq:
                self._log.count_part(seq, size)
            else:
                sent = self._sent(method, about, part.digest, size)
                blob = self._spool / part.digest.removeprefix("sha256:")
                seq = self._log.add_blob(sent, blob)
            yield part

    def _sent(self, method: str, about: Outgoing, digest: str, size: int) -> Sent:
        return Sent(
            at=self._now(),
            method=method.removeprefix("/larrey.v1."),
            study=about.study,
            round=about.round,
            phase=about.phase,
            code=about.code,
            bytes=size,
            digest=digest,
        )

    def _said(self, code: str = "") -> Outgoing:
        about: Outgoing = getattr(self._local, "about", _NOTHING)
        return replace(about, code=code)


class _Guarded:
    """What a stub asks of a channel: one callable a method."""

    def __init__(self, channel: grpc.Channel, border: Border) -> None:
        self._channel = channel
        self._border = border

    def unary_unary(self, method: str, *more: Any, **named: Any) -> Call:
        return self._single(method, self._channel.unary_unary(method, *more, **named))

    def unary_stream(self, method: str, *more: Any, **named: Any) -> Call:
        return self._single(method, self._channel.unary_stream(method, *more, **named))

    def stream_unary(self, method: str, *more: Any, **named: Any) -> Call:
        return self._parts(method, self._channel.stream_unary(method, *more, **named))

    def stream_stream(self, method: str, *more: Any, **named: Any) -> Call:
        return self._parts(method, self._channel.stream_stream(method, *more, **named))

    def _single(self, method: str, call: Call) -> Call:
        def guarded(request: Any, **named: Any) -> Any:
            self._border.let_through(method, request)
            return call(request, **named)

        return guarded

    def _parts(self, method: str, call: Call) -> Call:
        def guarded(requests: Iterator[Any], **named: Any) -> Any:
            return call(self._border.let_parts_through(method, requests), **named)

        return guarded
