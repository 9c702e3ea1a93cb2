"""A witness off this host: a file on another machine's share, a log collector, or both.

The file takes one signed anchor a line and is read again at every start. The collector only
receives (RFC 5424 over TCP, octet counting of RFC 6587). Each has a thread of its own and a bounded
queue: a share that hangs or a collector that is away never blocks a round.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from larrey_client.anchors import Anchored, open_anchor
from larrey_protocol.errors import FileError, IntegrityError

__all__ = ["FileWitness", "Sink", "SyslogWitness", "read_anchors", "unreachable"]

logger = logging.getLogger(__name__)

_TAIL = 1 << 18  # bytes read at start: some hundred anchors
_PATIENCE_S = 10.0  # a share that does not answer by then is unreachable
_SEND_TIMEOUT_S = 3.0
_QUEUE = 256
_PRIORITY = 13 * 8 + 5  # log audit, notice (RFC 5424, table 1)


def read_anchors(path: Path, key: str, *, tail: int = _TAIL) -> list[Anchored]:
    """Return this site's own anchors among a file's last lines; other lines are passed over.

    Raises:
        FileError: ``witness-unreachable`` where the file cannot be read within ten seconds.
    """
    found: list[bytes] = []
    failed: list[OSError] = []

    def read() -> None:
        try:
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
                found.append(file.read(tail))
        except FileNotFoundError:
            if path.parent.is_dir():
                found.append(b"")  # nothing was anchored there yet
            else:
                failed.append(OSError("its folder is not there"))
        except OSError as error:
            failed.append(error)

    reader = threading.Thread(target=read, name="witness", daemon=True)
    reader.start()
    reader.join(_PATIENCE_S)
    if not found:
        reason = failed[0].strerror or failed[0] if failed else "it does not answer"
        raise unreachable(path, str(reason))
    return [one for line in found[0].splitlines() if (one := _own(line, key)) is not None]


def unreachable(path: Path, reason: str) -> FileError:
    """Return the error of a witness that cannot be asked."""
    return FileError(
        "witness-unreachable",
        f"the witness file {path} cannot be asked: {reason}",
        "Mount the share, or set policy.witness_optional = true.",
    )


class Sink:
    """Hands lines to one witness in a thread of its own; the oldest are dropped when it is away.

    ``is_up`` says whether it took the last one.
    """

    def __init__(
        self, name: str, write: Callable[[bytes], None], end: Callable[[], None] = lambda: None
    ) -> None:
        self._name = name
        self._end = end
        self._write = write
        self._lines: queue.Queue[tuple[bytes, threading.Event] | None] = queue.Queue(_QUEUE)
        self.is_up = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> threading.Event:
        """Queue a line; the event is set once the witness has it."""
        has_it = threading.Event()
        while True:
            try:
                self._lines.put_nowait((line, has_it))
            except queue.Full:
                with suppress(queue.Empty):
                    self._lines.get_nowait()
            else:
                return has_it

    def close(self, patience_s: float = 2.0) -> None:
        """Write what is queued, as far as the witness takes it in that time."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=patience_s)
        self._thread.join(patience_s)

    def _run(self) -> None:
        try:
            self._hand_over()
        finally:
            self._end()

    def _hand_over(self) -> None:
        while (item := self._lines.get()) is not None:
            line, has_it = item
            try:
                self._write(line)
            except OSError as error:
                if self.is_up:
                    logger.warning("the witness %s is away: %s", self._name, error)
                self.is_up = False
            else:
                self.is_up = True
                has_it.set()


class FileWitness:
    """Appends lines to a file, each on the disk of its machine before the next."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: bytes) -> None:
        """Append one line; a torn line before it is closed first.

        Raises:
            OSError: the share is away.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o640)
        try:
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = (b"\n" if is_torn else b"") + line + b"\n"
            if os.write(descriptor, data) != len(data):
                raise OSError("the witness took part of a line")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class SyslogWitness:
    """Sends lines to a log collector over one connection, made anew when it broke."""

    def __init__(self, address: str, site: str, now: Callable[[], float]) -> None:
        self._address = address
        self._site = site
        self._now = now
        self._peer: socket.socket | None = None

    def write(self, line: bytes) -> None:
        """Send one message.

        Raises:
            OSError: the collector is away.
        """
        host, _, port = self._address.rpartition(":")
        if self._peer is None:
            self._peer = socket.create_connection((host, int(port)), timeout=_SEND_TIMEOUT_S)
        stamp = dt.datetime.fromtimestamp(self._now(), dt.UTC).isoformat(timespec="milliseconds")
        message = f"<{_PRIORITY}>1 {stamp} {self._site} larrey-site - anchor - ".encode() + line
        try:
            self._peer.sendall(b"%d %s" % (len(message), message))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None


def _own(line: bytes, key: str) -> Anchored | None:
    try:
        return open_anchor(line, key)
    except IntegrityError:
        return None
