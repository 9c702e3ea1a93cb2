"""The one connection that leaves the hospital: gRPC over mutual TLS to the coordinator.

Speaks ``larrey.v1`` and nothing else, opens no port, retries nothing by itself. What goes wrong is
a `TransportError` whose code says what to look at: network, coordinator's certificate, ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc

from larrey_protocol.errors import TransportError
from larrey_protocol.streams import STREAM_OPTIONS
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_protocol.waypoints import reached

if TYPE_CHECKING:
    from larrey_client.border import Border
    from larrey_client.model_spool import Download

__all__ = ["Exchange", "Tls", "code_of", "is_passing"]

CHUNK_BYTES = 2 << 20  # measured best of 1 to 16 MiB on loopback; below gRPC's 4 MiB default
_TAKE_TIMEOUT_S = 45.0  # the coordinator answers a long poll within 20 s
_CALL_TIMEOUT_S = 30.0
_CLOSE_S = 1.0  # a cancelled call ends within milliseconds
OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 << 20),
    *STREAM_OPTIONS,
    ("SingleThreadedUnaryStream", 1),  # grpcio's own name: no extra thread for each download
)
_LONGEST_CODE = 60
_NOT_EXPECTED = "not-expected"  # the coordinator's word for an answer that nobody waits for
_LOOPBACK = frozenset({"localhost", "127.0.0.1"})
_PASSING = frozenset(
    {
        "coordinator-unreachable",
        "coordinator-closed",
        "coordinator-timeout",
        "coordinator-busy",
        "upload-incomplete",
        "model-torn",  # what lay on this side's disk
    }
)
# What grpcio 1.85 says when we do not trust the coordinator, and when it does not trust us: TLS 1.3
# refuses a client certificate only after the handshake, by closing the connection.
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification")
_CLOSED = ("Socket closed", "Connection reset")
_CODES = {
    grpc.StatusCode.UNAVAILABLE: "coordinator-unreachable",
    grpc.StatusCode.CANCELLED: "coordinator-unreachable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "coordinator-timeout",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "coordinator-busy",
    grpc.StatusCode.ABORTED: "upload-incomplete",  # the same bytes came from elsewhere first
    grpc.StatusCode.UNAUTHENTICATED: "certificate-refused",
    grpc.StatusCode.PERMISSION_DENIED: "certificate-refused",
    grpc.StatusCode.NOT_FOUND: "not-offered",
    grpc.StatusCode.UNIMPLEMENTED: "coordinator-too-old",
}


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM bytes of both sides; the key is a secret."""

    authority: bytes
    certificate: bytes
    key: bytes


class Exchange:
    """Calls to one coordinator; every method may raise `TransportError`."""

    def __init__(
        self,
        address: str,
        tls: Tls,
        count: Callable[[int, int], None],
        border: Border | None = None,
    ) -> None:
        """Open the channel.

        Args:
            address: of the coordinator.
            tls: who we are and whom we trust.
            count: is told bytes sent and received.
            border: checks and records every request; None only where there are no patients'
                data: while joining, in benches.
        """
        self._address = address
        self._border = border
        self._count = count
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)  # a call did
        self._is_closed = False
        self._line = _Line(address, tls, border)
        self._lines = {self._line}

    def reopen(self, tls: Tls) -> None:
        """Use other credentials from the next call on; calls in flight end on the old channel.

        Does nothing once closed.
        """
        with self._lock:
            if self._is_closed:
                return
            old, self._line = self._line, _Line(self._address, tls, self._border)
            self._lines.add(self._line)
            is_idle = not old.calls
            if is_idle:
                self._lines.discard(old)
        if is_idle:
            old.channel.close()

    def close(self) -> None:
        """End every call in flight and begin none; each raises ``coordinator-unreachable``.

        Returns once all have ended, or after a second.
        """
        with self._lock:
            self._is_closed = True
            lines = list(self._lines)
        for line in lines:
            line.channel.close()
        with self._lock:
            self._ended.wait_for(lambda: not any(line.calls for line in lines), _CLOSE_S)

    def join(self, signed: bytes) -> wire.JoinReply:
        """Ask to be admitted, with an invitation's credential."""
        with self._call() as line:
            reply: wire.JoinReply = line.enrolment.Join(
                wire.JoinCall(request=signed), timeout=_CALL_TIMEOUT_S
            )
        return reply

    def renew(self, signed: bytes) -> wire.JoinReply:
        """Ask for the next certificate."""
        with self._call() as line:
            reply: wire.JoinReply = line.enrolment.Renew(
                wire.RenewCall(request=signed), timeout=_CALL_TIMEOUT_S
            )
        return reply

    def about(self, study: str, round_number: int, phase: str) -> AbstractContextManager[None]:
        """Say what this thread's streams are about, for the record of what left."""
        return self._border.about(study, round_number, phase) if self._border else nullcontext()

    def take(self, version: str, studies_seen: int, opens_at: float = 0.0) -> wire.TakeReply:
        """Return the next piece of work, or an empty reply after the long poll.

        ``opens_at`` says when this site may train next (unix time), 0.0 for now.
        """
        request = wire.TakeRequest(
            node_version=version, studies_seen=studies_seen, opens_at=opens_at
        )
        with self._call() as line:
            reply: wire.TakeReply = line.exchange.Take(request, timeout=_TAKE_TIMEOUT_S)
        return reply

    def studies(self) -> wire.ListStudiesReply:
        """Return what is proposed to this site."""
        with self._call() as line:
            reply: wire.ListStudiesReply = line.studies.List(
                wire.ListStudiesRequest(), timeout=_CALL_TIMEOUT_S
            )
        return reply

    def answer(self, signed: bytes) -> wire.AnswerReply:
        """Hand over a signed answer to a proposal."""
        with self._call() as line:
            reply: wire.AnswerReply = line.studies.Answer(
                wire.AnswerRequest(answer=signed), timeout=_CALL_TIMEOUT_S
            )
        return reply

    def tell(self, signed: bytes) -> wire.AnswerReply:
        """Hand over another document that this site signed: a deletion receipt, a departure."""
        with self._call() as line:
            reply: wire.AnswerReply = line.studies.Tell(
                wire.TellRequest(document=signed), timeout=_CALL_TIMEOUT_S
            )
        return reply

    def fetch(
        self,
        download: Download,
        *,
        timeout_s: float,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Continue ``download`` from where it was cut.

        ``goes_on`` is asked after each part; nothing more is taken once it says no.

        Raises:
            IntegrityError: ``model-altered`` when more arrives than was announced.
            LarreyError: ``disk-full``.
        """
        request = wire.FetchRequest(digest=download.digest, offset=download.received)
        with self._call() as line:
            stream = line.exchange.Fetch(request, timeout=timeout_s)
            try:
                for chunk in stream:
                    download.add(chunk.data)
                    reached("agent.model-part-fetched")
                    self._count(0, len(chunk.data))
                    if not goes_on():
                        return
            finally:
                stream.cancel()

    def store(
        self,
        digest: str,
        path: Path,
        *,
        timeout_s: float,
        resume: bool,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Upload a blob; with ``resume``, only what the coordinator still lacks.

        ``goes_on`` is asked before each part; nothing more is sent once it says no.

        Raises:
            TransportError: ``upload-incomplete`` if the coordinator does not have it afterwards.
        """
        total, offset = path.stat().st_size, 0
        with self._call() as line:
            if resume:
                offer = wire.OfferRequest(digest=digest, total_bytes=total)
                have = line.exchange.Offer(offer, timeout=_CALL_TIMEOUT_S)
                if have.complete:
                    return
                offset = min(have.have_bytes, total)
            parts = _parts(digest, path, total, offset, goes_on)
            reply = line.exchange.Store(parts, timeout=timeout_s)
        self._count(total - offset, 0)
        if not reply.complete:
            raise TransportError("upload-incomplete", f"the coordinator has not all of {digest}")

    def give(self, request: wire.GiveRequest) -> wire.GiveReply:
        """Hand over one reply."""
        with self._call() as line:
            reply: wire.GiveReply = line.exchange.Give(request, timeout=_CALL_TIMEOUT_S)
        return reply

    @contextmanager
    def _call(self) -> Iterator[_Line]:
        """Lend the present channel for one call; one that was replaced closes after its last."""
        with self._lock:
            if self._is_closed:
                raise _closed()
            line = self._line
            line.calls += 1
        try:
            with _translated():
                yield line
        finally:
            with self._lock:
                line.calls -= 1
                self._ended.notify_all()
                is_over = line is not self._line and not line.calls
                if is_over:
                    self._lines.discard(line)
            if is_over:
                line.channel.close()


class _Line:
    """One channel, its services, and how many calls are on it."""

    def __init__(self, address: str, tls: Tls, border: Border | None) -> None:
        credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
        proxy = ("grpc.enable_http_proxy", int(address.rpartition(":")[0] not in _LOOPBACK))
        self.channel = grpc.secure_channel(address, credentials, [*OPTIONS, proxy])
        guarded = border.around(self.channel) if border else self.channel
        self.exchange = stubs.ExchangeStub(guarded)  # type: ignore[no-untyped-call]
        self.studies = stubs.StudiesStub(guarded)  # type: ignore[no-untyped-call]
        self.enrolment = stubs.EnrolmentStub(guarded)  # type: ignore[no-untyped-call]
        self.calls = 0


def code_of(reply: wire.AnswerReply | wire.GiveReply) -> str:
    """Return the coordinator's code; foreign text that is logged and kept, so it is cut short."""
    return "".join(c for c in reply.code[:_LONGEST_CODE] if c.isprintable())


def is_passing(error: TransportError) -> bool:
    """Return whether waiting may help without anybody's doing."""
    return error.code in _PASSING


def _parts(
    digest: str, path: Path, total: int, offset: int, goes_on: Callable[[], bool]
) -> Iterator[wire.StorePart]:
    with path.open("rb") as file:
        file.seek(offset)
        while goes_on():
            data = file.read(CHUNK_BYTES)
            yield wire.StorePart(digest=digest, total_bytes=total, offset=offset, data=data)
            reached("agent.update-part-sent")
            offset += len(data)
            if offset >= total or not data:
                return


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise _transport_error(error) from error
    except ValueError as error:  # grpcio: a call on a closed channel
        raise _closed() from error


def _closed() -> TransportError:
    return TransportError("coordinator-unreachable", "the connection is closed")


def _transport_error(error: grpc.RpcError) -> TransportError:
    call = cast(grpc.Call, error)  # every error that a stub raises is also its call
    status, details = call.code(), call.details() or ""
    if status is grpc.StatusCode.UNAVAILABLE and any(mark in details for mark in _UNTRUSTED):
        return TransportError(
            "coordinator-untrusted",
            "the coordinator's certificate is not signed by the authority in site.toml for its"
            " address",
            "Compare coordinator.authority with the consortium's invitation.",
        )
    if "failed to connect" in details and any(mark in details for mark in _CLOSED):
        return TransportError(
            "coordinator-closed",
            "the coordinator closed the connection at once, as it does with a certificate that it"
            " does not accept",
            "Check that identity.certificate is registered, not expired and from its authority.",
        )
    code = _CODES.get(status, "coordinator-failed")
    if status is grpc.StatusCode.FAILED_PRECONDITION and details == _NOT_EXPECTED:
        code = _NOT_EXPECTED
    step = "Ask the coordinator whether this site's certificate is registered and valid."
    return TransportError(
        code,
        f"the coordinator answered {status.name}",
        step if code == "certificate-refused" else "",
    )
