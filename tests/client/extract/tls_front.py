"""TLS before a PostgreSQL server that was built without it: the server's half of its handshake.

A client asks for TLS with eight bytes; one byte answers, S for yes and N for no; what follows S is
a TLS handshake, then the protocol as ever. Source: PostgreSQL, "SSL Session Encryption" in
https://www.postgresql.org/docs/current/protocol-flow.html.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from larrey_protocol.certificates import Credential

__all__ = ["Front", "fronted"]

_TLS_WANTED = bytes.fromhex("00000008 04d2162f")
_PART = 1 << 16


@dataclass
class Front:
    """A port with TLS that leads to the server's port without.

    Attributes:
        sessions: how many clients went through to the server, after a handshake that they liked.
    """

    database: int
    context: ssl.SSLContext | None  # None answers that there is no TLS
    port: int = 0
    sessions: int = 0
    plain: bytearray = field(default_factory=bytearray)  # what a client said without TLS

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with (
            contextlib.closing(writer),
            contextlib.suppress(OSError, asyncio.IncompleteReadError),  # a client that refuses
        ):
            assert await reader.readexactly(8) == _TLS_WANTED
            writer.write(b"S" if self.context else b"N")
            if self.context is None:
                self.plain += await reader.read(_PART)
            else:
                await writer.start_tls(self.context)
                await self._carry(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(_PART)
        if not first:
            return
        self.sessions += 1
        back, onward = await asyncio.open_connection("127.0.0.1", self.database)
        onward.write(first)
        await asyncio.wait(
            [asyncio.create_task(_copy(reader, onward)), asyncio.create_task(_copy(back, writer))]
        )


@contextmanager
def fronted(database: int, credential: Credential | None, folder: Path) -> Iterator[Front]:
    """Give a front on loopback with a server's credential, or one without TLS."""
    front = Front(database, _context(credential, folder) if credential else None)
    started, loops = threading.Event(), []
    stop = asyncio.Event()

    async def listen() -> None:
        loops.append(asyncio.get_running_loop())
        server = await asyncio.start_server(front.serve, "127.0.0.1", 0)
        async with server:
            front.port = server.sockets[0].getsockname()[1]
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    assert started.wait(10)
    try:
        yield front
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await source.read(_PART):
            sink.write(part)
            await sink.drain()
    sink.close()


def _context(credential: Credential, folder: Path) -> ssl.SSLContext:
    certificate, key = folder / "server.crt", folder / "server.key"
    certificate.write_bytes(credential.certificate)
    key.write_bytes(credential.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
