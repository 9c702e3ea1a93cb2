"""The physical bound: the same bytes over bare grpcio, N processes, one mutual-TLS stream each.

No state, no checks, no disk: what remains is gRPC, TLS and the machine.
"""

from __future__ import annotations

import datetime as dt
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc

from larrey_protocol.certificates import Credential, issue_client, issue_server, make_authority
from larrey_protocol.keys import write_private

__all__ = ["seconds_per_round"]

_METHOD, _CHUNK = "/bench.Bare/Exchange", 1 << 20
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def seconds_per_round(*, nodes: int, nbytes: int, rounds: int) -> list[float]:
    """Return the seconds in which every node got ``nbytes`` and sent them back, per round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        now = dt.datetime.now(dt.UTC)
        authority = make_authority("bench", now=now)
        server = issue_server(authority, ["localhost"], now=now)
        for holder, credential in {
            "ca": authority,
            "client": issue_client(authority, "node", now=now),
        }.items():
            (folder / f"{holder}.crt").write_bytes(credential.certificate)
            write_private(folder / f"{holder}.key", credential.key)
        return _run(folder, authority, server, nodes, nbytes, rounds)


def _run(
    folder: Path,
    authority: Credential,
    credential: Credential,
    nodes: int,
    nbytes: int,
    rounds: int,
) -> list[float]:
    inboxes: list[queue.SimpleQueue[bytes]] = []
    replies: queue.SimpleQueue[None] = queue.SimpleQueue()

    def exchange(incoming: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        inboxes.append(inbox)
        while payload := inbox.get():
            yield from (payload[i : i + _CHUNK] for i in range(0, nbytes, _CHUNK))
            got = 0
            while got < nbytes:
                got += len(next(incoming))
            replies.put(None)

    server = grpc.server(futures.ThreadPoolExecutor(nodes + 2), options=_OPTIONS)
    server.add_generic_rpc_handlers((_Handler(exchange),))
    tls = grpc.ssl_server_credentials(
        [(credential.key, credential.certificate)], authority.certificate, True
    )
    port = server.add_secure_port("127.0.0.1:0", tls)
    server.start()
    command = [sys.executable, "-m", "bench.bare_grpc", str(folder), str(port), str(nbytes)]
    clients = [subprocess.Popen(command) for _ in range(nodes)]
    try:
        end = time.monotonic() + 30
        while len(inboxes) < nodes and time.monotonic() < end:
            time.sleep(0.01)
        return [_round(inboxes, replies, nbytes, i) for i in range(rounds)]
    finally:
        for inbox in inboxes:
            inbox.put(b"")
        for client in clients:
            client.kill()
            client.wait()
        server.stop(0)


def _round(
    inboxes: list[queue.SimpleQueue[bytes]], replies: queue.SimpleQueue[None], nbytes: int, i: int
) -> float:
    payload = bytes([i % 251]) * nbytes
    start = time.perf_counter()
    for inbox in inboxes:
        inbox.put(payload)
    for _ in inboxes:
        replies.get(timeout=60)
    return time.perf_counter() - start


_Behaviour = Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]


class _Handler(grpc.GenericRpcHandler):
    def __init__(
        self, exchange: Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]
    ):
        self._method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            exchange
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._method if handler_call_details.method == _METHOD else None


def _client(folder: Path, port: int, nbytes: int) -> None:
    tls = grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(),
        (folder / "client.key").read_bytes(),
        (folder / "client.crt").read_bytes(),
    )
    outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with grpc.secure_channel(f"localhost:{port}", tls, _OPTIONS) as channel:
        exchange: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(_METHOD)
        incoming = exchange(iter(outbox.get, None))
        got: list[bytes] = []
        for part in incoming:
            got.append(part)
            if sum(map(len, got)) == nbytes:
                for chunk in got:
                    outbox.put(chunk)
                got = []


if __name__ == "__main__":
    _client(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
