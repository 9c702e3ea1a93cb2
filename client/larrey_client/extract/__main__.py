"""The extract process: ``python -m larrey_client.extract FD``, started by `snapshots.take` only.

It has no keys of Larrey, connects to the hospital's database and confines itself before it reads a
byte from there: its network leads into that one connection, its files are the system's libraries
and two descriptors, the connection string and the snapshot to be. It answers two frames, which
barriers stand and how it went, and ends.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import Any

from larrey_client.confinement.barriers import Isolation
from larrey_client.confinement.kernel import (
    leave_network,
    limit_memory,
    no_more_privileges,
    withdraw,
)
from larrey_client.confinement.process import Plan, restrict_files
from larrey_client.confinement.seccomp import forbid_sockets
from larrey_client.extract.relay import Relay, Target, raise_loopback
from larrey_client.extract.wish import Wish
from larrey_client.frames import receive_frame, send_frame
from larrey_protocol.errors import DataError, LarreyError, TransportError

__all__ = ["main"]

_MAX_STRING_BYTES = 1 << 16
_CERTIFICATES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_INSTALL = 'pip install "larrey[sql]"'


def main(argv: list[str] | None = None) -> int:
    """Answer one wish; return 0 if there is a snapshot."""
    parser = argparse.ArgumentParser(prog="larrey-extract")
    parser.add_argument("descriptor", type=int)
    with socket.socket(fileno=parser.parse_args(argv).descriptor) as agent:
        try:
            frame, files = receive_frame(agent)
            answer = _answer(agent, frame, files)
            send_frame(agent, answer)
        except TransportError:  # the agent is gone
            return 1
    return 1 if "code" in answer else 0


def _answer(agent: socket.socket, frame: dict[str, Any], files: list[int]) -> dict[str, Any]:
    """Return the last frame; the guard of this process."""
    try:
        return {"rows": _extract(agent, Wish.parse(frame), *files)}
    except LarreyError as error:
        return {"code": error.code, "message": error.message, "next_step": error.next_step}
    except Exception as error:  # noqa: BLE001  the text may hold data: only its type is told
        return {"code": "source-failed", "message": f"the extraction failed ({_kind(error)})"}


def _extract(agent: socket.socket, wish: Wish, string: int, sink: int) -> int:
    parameters = _parameters(os.pread(string, _MAX_STRING_BYTES, 0))
    os.close(string)
    target = Target.of(parameters)
    outside = target.connect()
    readable = tuple(str(parameters[name]) for name in _CERTIFICATES if name in parameters)
    relay, isolation = _confine(wish, readable, outside)
    send_frame(agent, {"isolation": dict(isolation.reasons)})
    from larrey_client.extract.query import Bounds, extract

    relay.start()
    bounds = Bounds(wish.timeout_s, wish.max_rows, wish.max_bytes)
    return extract(relay.parameters(parameters, target), wish.query, sink, bounds)


def _parameters(string: bytes) -> dict[str, Any]:
    """Return the connection string, parsed by PostgreSQL's own library.

    Raises:
        DataError: ``source-library`` or ``source-connection``; never with the string's text.
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise DataError("source-library", "psycopg is not installed", f"Run: {_INSTALL}") from None
    try:
        return dict(conninfo_to_dict(string.decode().strip()))
    except (ProgrammingError, UnicodeDecodeError):
        raise DataError(
            "source-connection",
            "the file in dsn_file is not a PostgreSQL connection string",
            "Write for instance: host=db.hospital dbname=warehouse user=larrey password=…",
        ) from None


def _confine(
    wish: Wish, readable: tuple[str, ...], outside: socket.socket
) -> tuple[Relay, Isolation]:
    """Confine this process for good, but for the relay into the socket ``outside``."""
    namespace = leave_network()
    if not namespace:
        raise_loopback()
    relay = Relay(outside)
    memory = limit_memory(wish.memory_bytes)
    core, tracing = withdraw()
    no_more_privileges()
    plan = Plan(readable=readable, hidden=wish.hidden)
    files = restrict_files(plan, connect_ports=(relay.port,))
    isolation = {
        "namespace": namespace,
        "filter": forbid_sockets(internet_streams=True),
        "landlock": files.files,
        "landlock-tcp": files.tcp,
        "landlock-scope": files.scope,
        "memory": memory,
        "core": core,
        "tracing": tracing,
    }
    return relay, Isolation(isolation)


def _kind(error: Exception) -> str:
    return type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
