"""A coordinator behind a CONNECT proxy is examined through it, as gRPC would go."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from larrey_protocol.certificates import issue_server
from tests.client.doctor.conftest import Patient
from tests.client.doctor.faults import NOW
from tests.client.node.conftest import Pki
from tests.client.node.peer import Peer


@pytest.fixture
def hub(pki: Pki) -> Iterator[Peer]:
    """Return a coordinator under a name that no DNS knows."""
    server = issue_server(pki.authority, ["hub.invalid"], now=NOW)
    peer = Peer().start(server, pki.authority.certificate)
    yield peer
    peer.stop()


class Proxy:
    """Answers CONNECT and passes bytes on to one port."""

    def __init__(self, port: int, answer: bytes) -> None:
        self._port, self._answer = port, answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with near, suppress(OSError):
                    self._attend(near)

    def _attend(self, near: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = near.recv(4096)
            if not part:
                return
            head += part
        self.asked.append(head)
        near.sendall(self._answer)
        with socket.create_connection(("127.0.0.1", self._port)) as far:
            back = threading.Thread(target=_carry, args=(far, near))
            back.start()
            _carry(near, far)
            back.join()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(1 << 16):
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", "ok"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "failed"),
    ],
)
def test_the_coordinator_is_reached_through_the_proxy(
    patient: Patient, hub: Peer, answer: bytes, status: str
) -> None:
    proxy = Proxy(hub.port, answer)
    try:
        patient.edit(f"localhost:{patient.peer.port}", "hub.invalid:443")
        assert patient.find("coordinator-name-unknown").status == "failed"
        patient.env.setenv("https_proxy", f"http://user:secret@{proxy.address}")
        assert patient.find("coordinator-name-unknown").status == "ok"  # the proxy resolves it
        assert patient.find("proxy-unreachable").status == "ok"
        assert patient.find("coordinator-unreachable").status == status
        assert patient.find("coordinator-untrusted").status == "ok"
        assert proxy.asked[0].startswith(b"CONNECT hub.invalid:443 HTTP/1.1\r\n")
        assert all(b"secret" not in one for one in proxy.asked)
        patient.env.setenv("no_proxy", "localhost,127.0.0.1,.invalid")
        assert patient.find("coordinator-name-unknown").status == "failed"
        assert patient.find("proxy-takes-loopback").status == "ok"
    finally:
        proxy.close()
