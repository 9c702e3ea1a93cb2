"""One connection to the hospital's database, made before a process gives up every network.

The process connects, then leaves the network for an empty one whose loopback leads, through this
relay, into that connection and nowhere else. Bytes are carried as they are: TLS between the
database's client library and the database stays whole. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from larrey_protocol.errors import DataError

__all__ = ["Relay", "Target", "raise_loopback"]

_PATIENCE_S = 20.0
_PART_BYTES = 1 << 18
_LOOPBACK = "127.0.0.1"
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


@dataclass(frozen=True, slots=True)
class Target:
    """Which database: a host, or the folder of its Unix socket, and a port."""

    host: str
    port: int

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Target:
        """Return the one database that PostgreSQL's connection parameters name.

        Raises:
            DataError: ``source-connection`` where they name none or several.
        """
        host = str(parameters.get("hostaddr") or parameters.get("host") or "")
        port = str(parameters.get("port") or 5432)
        if not host or "," in host or "service" in parameters or not port.isdecimal():
            raise DataError(
                "source-connection",
                "the connection string must name one host, and one port if it is not 5432",
                "Write host=… into the file; lists of hosts and services are not taken.",
            )
        return cls(host, int(port))

    @property
    def is_local(self) -> bool:
        """Return whether it is reached through a Unix socket."""
        return self.host.startswith("/")

    def connect(self) -> socket.socket:
        """Return a connected socket.

        Raises:
            DataError: ``source-unreachable``.
        """
        try:
            if not self.is_local:
                return socket.create_connection((self.host, self.port), _PATIENCE_S)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.connect(f"{self.host}/.s.PGSQL.{self.port}")
        except OSError as error:
            raise DataError(
                "source-unreachable",
                f"the database cannot be reached ({error.strerror or type(error).__name__})",
                "Check host, port and firewall.",
            ) from error
        return made


class Relay:
    """Carries what one client on loopback says to a connected socket, and back."""

    def __init__(self, outside: socket.socket) -> None:
        """Listen; what is beyond loopback does not exist for who connects."""
        outside.settimeout(None)
        self._outside = outside
        self._listener = socket.create_server((_LOOPBACK, 0), backlog=1)
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        """Wait for the one client in the background."""
        threading.Thread(target=self._serve, name="relay", daemon=True).start()

    def parameters(self, given: Mapping[str, Any], target: Target) -> dict[str, Any]:
        """Return the connection parameters with which a client goes through this relay.

        The name of the host stays, so that TLS checks it.
        """
        changed = {"hostaddr": _LOOPBACK, "port": self.port, "gssencmode": "disable"}
        if target.is_local:  # PostgreSQL has no TLS on Unix sockets
            changed |= {"host": "localhost", "sslmode": "disable"}
        return {"host": target.host, **given, **changed}

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        self._listener.close()
        back = threading.Thread(target=_carry, args=(self._outside, client), daemon=True)
        back.start()
        _carry(client, self._outside)


def raise_loopback() -> None:
    """Switch on the loopback of an own, empty network.

    Source: netdevice(7).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _carry(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends; then tell the sink."""
    part = memoryview(bytearray(_PART_BYTES))
    with contextlib.suppress(OSError):
        while count := source.recv_into(part):
            sink.sendall(part[:count])
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
