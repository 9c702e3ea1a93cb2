"""Stands at the named points of the programs under test: writes down what is reached, and kills.

Python imports this file before the product where its folder is on PYTHONPATH. Each program has a
copy of its own (`tests.chaos.stand`), and beside it three files, opened here because a trainer
closes the file system to itself:

``trace``  one line a point: monotonic seconds, process id, label; appended.
``armed``  the labels to die at, the next one first: "LABEL TIMES". Whoever reaches it that often
           takes the line away, durably, and ends itself with SIGKILL.
``clock``  seconds by which this program's wall clock is wrong; empty for a right one. That misleads
           what reads `time.time` or `time.time_ns`: all that the product passes as a clock but for
           the dates of certificates. Right goes on what reads the machine's clock in C:
           `datetime.now` (and so Flower's time to live), OpenSSL, SQLite; a stand-in for
           `datetime.datetime` does not have the size that compiled modules expect. The monotonic
           clock goes on, too. grpc is told right: its Python half hands a call's deadline to its
           C half, which reads the machine's clock; an hour back, every call would be over at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from larrey_protocol.waypoints import visit

_MOST_BYTES = 4096


class Visitor:
    """What this process does at each point."""

    def __init__(self, folder: Path) -> None:
        self._armed = os.open(folder / "armed", os.O_RDWR | os.O_CLOEXEC)
        self._trace = os.open(folder / "trace", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._seen = ("", 0)
        self._write("started")

    def __call__(self, label: str) -> None:
        """Write the label down; end this process if it is the armed one."""
        with self._lock:
            self._write(label)
            orders = os.pread(self._armed, _MOST_BYTES, 0).decode()
            order, _, later = orders.partition("\n")
            wanted, _, times = order.partition(" ")
            if label != wanted:
                return
            before, count = self._seen
            self._seen = (orders, count + 1 if before == orders else 1)
            if self._seen[1] >= int(times):
                self._die(label, later)

    def _die(self, label: str, later: str) -> None:
        os.ftruncate(self._armed, 0)
        os.pwrite(self._armed, later.encode(), 0)
        os.fsync(self._armed)
        self._write(f"killed {label}")
        os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, text: str) -> None:
        os.write(self._trace, f"{time.monotonic():.6f} {os.getpid()} {text}\n".encode())


_TIME, _TIME_NS = time.time, time.time_ns


def mislead(clock: int) -> None:
    """Have the wall clock of this process be wrong by the seconds in an open file."""

    def wrong_by() -> float:
        return float(os.pread(clock, _MOST_BYTES, 0) or 0)

    def told() -> float:
        asks = sys._getframe(1).f_globals.get("__name__", "")
        return _TIME() if asks.startswith("grpc.") else _TIME() + wrong_by()

    time.time = told
    time.time_ns = lambda: _TIME_NS() + int(wrong_by() * 1e9)


mislead(os.open(Path(__file__).with_name("clock"), os.O_RDONLY | os.O_CLOEXEC))
visit(Visitor(Path(__file__).parent))
