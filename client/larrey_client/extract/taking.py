"""The agent's side of an extraction: start the process, wait, make its file the snapshot.

The agent passes the connection string's file on without reading it; the password is in no argument,
no environment and no log. A process that fails, hangs or lies costs an error, and the snapshot
that was there stays.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larrey_client.confinement.barriers import Isolation
from larrey_client.confinement.process import memory_limit
from larrey_client.extract.snapshots import current, keep, rows_of, sole_writer
from larrey_client.extract.wish import Wish
from larrey_client.frames import receive_frame, send_frame
from larrey_client.settings import Dataset, SiteSettings
from larrey_client.sources_settings import SqlSource
from larrey_protocol.errors import DataError, FileError, TransportError, UsageError
from larrey_protocol.tomlfile import read_text

__all__ = ["Snapshot", "ready_rows", "renewed_rows", "take"]

logger = logging.getLogger(__name__)
_GRACE_S = 60.0  # to start, to connect, to write the end of the file
_OPEN_TO_OTHERS = 0o037  # as for key files: owner, and a group that may only read
_MAX_TEXT = 300
_CODES = frozenset(
    {
        "source-columns",
        "source-connection",
        "source-empty",
        "source-library",
        "source-login",
        "source-query",
        "source-refused",
        "source-timeout",
        "source-too-large",
        "source-unreachable",
        "source-untrusted",
    }
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an extraction gave; the number of rows is exact and stays at the site."""

    path: Path
    rows: int
    isolation: Isolation


def ready_rows(settings: SiteSettings, dataset: Dataset) -> Path:
    """Return the file with a dataset's rows; a database that was never asked is asked now.

    Raises:
        DataError: as `take`.
    """
    source, state = dataset.origin, settings.site.state
    if isinstance(source, SqlSource) and current(state, dataset.name) is None:
        return take(settings, dataset).path
    return rows_of(dataset, state)


def renewed_rows(settings: SiteSettings, dataset: Dataset) -> Path:
    """Return the file with a dataset's rows for an approval, asked for anew where it says so.

    Raises:
        DataError: as `take`.
    """
    source = dataset.origin
    if isinstance(source, SqlSource) and source.refresh == "approval":
        return take(settings, dataset).path
    return ready_rows(settings, dataset)


def take(settings: SiteSettings, dataset: Dataset) -> Snapshot:
    """Ask the database of a dataset and replace its snapshot by the answer.

    Raises:
        UsageError: ``dataset-not-sql``.
        FileError: ``missing-file`` or ``key-exposed``, of the two files that the source names.
        DataError: a code that starts with ``source-``; it says what the database or its file lacks.
    """
    source, state = dataset.origin, settings.site.state
    if not isinstance(source, SqlSource):
        raise UsageError(
            "dataset-not-sql",
            f"dataset '{dataset.name}' is no query",
            'Give it source = {kind = "sql", …} in site.toml.',
        )
    identity = settings.identity
    wish = Wish(
        query=read_text(source.query_file),
        timeout_s=source.timeout_s,
        max_rows=source.max_rows,
        max_bytes=source.max_mb << 20,
        memory_bytes=memory_limit(settings.trainer.memory_mb),
        hidden=tuple(map(str, (identity.key, identity.signing_key, state, source.dsn_file))),
    )
    with _secret(source.dsn_file) as string, sole_writer(state, dataset.name) as sink:
        rows, isolation = _ask(wish, [string, sink])
        snapshot = Snapshot(keep(state, dataset.name, sink), rows, isolation)
    logger.info("dataset=%s extracted snapshot=%s", dataset.name, snapshot.path.name)
    return snapshot


def _ask(wish: Wish, files: Sequence[int]) -> tuple[int, Isolation]:
    deadline = time.monotonic() + wish.timeout_s + _GRACE_S
    with _process() as peer:
        try:
            send_frame(peer, wish.frame(), files)
            answer, isolation = _receive(peer, deadline), None
            if "isolation" in answer:
                isolation = Isolation.parse(answer["isolation"])
                answer = _receive(peer, deadline)
        except TimeoutError:
            raise DataError(
                "source-timeout", "the extraction takes longer than timeout_s", "Raise it."
            ) from None
        except TransportError:
            raise _failed("the extraction ended without an answer") from None
    rows = answer.get("rows")
    if "code" in answer:
        raise _told(answer)
    if not isinstance(rows, int) or isolation is None:
        raise _failed("the extraction broke the frame protocol")
    for name, reason in isolation.missing.items():
        logger.warning("extract is not isolated barrier=%s reason=%r", name, reason)
    return rows, isolation


def _receive(peer: socket.socket, deadline: float) -> dict[str, Any]:
    answer, files = receive_frame(peer, deadline=deadline)
    for fd in files:
        os.close(fd)
    return answer


@contextmanager
def _process() -> Iterator[socket.socket]:
    """Give a socket to a new process that ends, by force if need be, with the context."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "LC_ALL", "PYTHONPATH") if k in os.environ}
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "larrey_client.extract", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=kept | {"HOME": "/nonexistent"},  # no ~/.pgpass, no ~/.postgresql
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries may quote the database
                cwd="/",
            )
        try:
            yield ours
        finally:
            process.kill()
            process.wait()


@contextmanager
def _secret(path: Path) -> Iterator[int]:
    """Give a descriptor of a file that only its owner may read.

    Raises:
        FileError: ``missing-file`` or ``key-exposed``.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(
            "missing-file", f"expected a connection string in {path}", "Check dsn_file."
        ) from error
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) & _OPEN_TO_OTHERS:
            raise FileError("key-exposed", f"{path} is open to others", f"Run: chmod 600 {path}")
        yield fd
    finally:
        os.close(fd)


def _told(answer: dict[str, Any]) -> DataError:
    """Return the error that the process reports; it is foreign text, for people at the site."""
    code = str(answer["code"])
    message, step = (_plain(answer.get(name, "")) for name in ("message", "next_step"))
    return DataError(code, message, step) if code in _CODES else _failed(message)


def _plain(text: object) -> str:
    return "".join(c for c in str(text)[:_MAX_TEXT] if c.isprintable())


def _failed(message: str) -> DataError:
    return DataError("source-failed", message, "Try again; then look at the database's log.")
