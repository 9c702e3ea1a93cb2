"""A network between programs of this machine that can be made bad, one line at a time.

Each `Line` listens on loopback and passes bytes on to an address, both ways, until a `Fault`
strikes it. It counts what it passed and what it swallowed, so that a test can say what happened.
All lines of a `Network` live on one thread with one event loop; every call here may come from any
other thread and returns once it has taken effect.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar, get_args

Way = Literal["up", "down"]  # up: towards the address behind the line
Kind = Literal["latency", "bandwidth", "reset", "stall", "half-open", "partition", "cut"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UP_DOWN: tuple[Way, ...] = get_args(Way)
_PIECE = 64 << 10  # what is under way on a line at once, in one direction
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER without a wait: RST instead of FIN
_T = TypeVar("_T")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line from `Line.strike` to `Line.heal`; several may be at once.

    ``latency``    each piece of 64 KiB comes ``delay_s`` later
    ``bandwidth``  no more than ``rate`` bytes a second pass
    ``reset``      connections end by RST, new ones as well
    ``stall``      connections stand, new ones are taken, nothing passes; what waits passes later
    ``half-open``  on the present connections one way swallows everything without a word
    ``partition``  all connections swallow everything, new ones are taken and swallow it, too
    ``cut``        after ``after`` more bytes each connection ends by RST, once
    """

    kind: Kind
    ways: tuple[Way, ...] = UP_DOWN
    delay_s: float = 0.0
    rate: float = 0.0
    after: int = 0


class Network:
    """The thread that all lines live on; a context manager that ends them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines", daemon=True)
        self._lines: list[Line] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def line(self, port: int) -> Line:
        """Return a new line to a port of this machine."""
        line = Line(self, port)
        self._lines.append(line)
        self.call(line.begin)
        return line

    def call(self, act: Callable[[], _T]) -> _T:
        """Return what ``act`` returns on the network's thread."""

        async def done() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return work begun on the network's thread, called from there."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self) -> None:
        for line in self._lines:
            line.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            line.close()


class Line:
    """One address here that stands for another one.

    Attributes:
        passed: bytes that came out, by way.
        swallowed: bytes that went in and never came out, by way.
        events: how often a connection was made, reset, or could not be made.
    """

    def __init__(self, network: Network, port: int) -> None:
        self.passed: Counter[Way] = Counter()
        self.swallowed: Counter[Way] = Counter()
        self.events: Counter[str] = Counter()
        self._network = network
        self._to = ("127.0.0.1", port)
        self._door = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._door.setblocking(False)
        self._faults: tuple[Fault, ...] = ()
        self._links: set[_Link] = set()
        self._left = 0  # bytes before a cut
        self._free_at: dict[Way, float] = {"up": 0.0, "down": 0.0}  # of a narrow line
        self._changed = asyncio.Event()

    @property
    def port(self) -> int:
        return int(self._door.getsockname()[1])

    @property
    def links(self) -> int:
        """Return how many connections are open."""
        return len(self._links)

    def strike(self, *faults: Fault) -> None:
        """Make the line bad in these ways, and no longer in others."""
        self._network.call(lambda: self._strike(faults))

    def heal(self) -> None:
        """Make the line good; connections that lost bytes end by RST."""
        self._network.call(self._heal)

    def begin(self) -> None:
        self._acceptor = self._network.task(self._accept())

    def end(self) -> None:
        self._acceptor.cancel()
        for link in self._links:
            link.reset()

    def close(self) -> None:
        self._door.close()

    def _strike(self, faults: tuple[Fault, ...]) -> None:
        self._heal()
        self._faults, self._left = faults, sum(fault.after for fault in faults)
        for link in self._links:
            link.dead |= {way for way in UP_DOWN if self._is("half-open", way)}
            if self._refuses:
                link.reset()

    def _heal(self) -> None:
        self._faults = ()
        for link in self._links:
            if link.dead:
                link.reset()
        self._changed.set()
        self._changed = asyncio.Event()

    def _is(self, kind: Kind, way: Way) -> Fault | None:
        fits = (fault for fault in self._faults if fault.kind == kind and way in fault.ways)
        return next(fits, None)

    @property
    def _refuses(self) -> bool:
        return any(fault.kind == "reset" for fault in self._faults)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with suppress(OSError):
                near, _ = await loop.sock_accept(self._door)
                self.events["connected"] += 1
                if self._refuses:
                    _reset(near)
                    self.events["reset"] += 1
                    continue
                near.setblocking(False)
                self._network.task(self._join(near))

    async def _join(self, near: socket.socket) -> None:
        far = socket.socket()
        far.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(far, self._to)
        except OSError:
            self.events["unreachable"] += 1
            far.close()
            _reset(near)
            return
        link = _Link(self, near, far)
        if self._refuses:  # it was taken just before
            link.reset()
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def admit(self, way: Way, link: _Link, nbytes: int) -> int:
        """Return how many of the bytes may pass now, after what they have to wait for."""
        if fault := self._is("latency", way):
            await asyncio.sleep(fault.delay_s)
        if fault := self._is("bandwidth", way):
            now = time.monotonic()
            begin = max(now, self._free_at[way])
            self._free_at[way] = begin + nbytes / fault.rate
            await asyncio.sleep(self._free_at[way] - now)
        while self._is("stall", way):
            await self._changed.wait()
        if self._is("partition", way):
            link.dead.add(way)
        if way in link.dead:
            return 0
        return min(nbytes, self._left) if self._is("cut", way) else nbytes

    def note(self, way: Way, passed: int, swallowed: int) -> None:
        """Count; a cut whose bytes are used up happens now."""
        self.passed[way] += passed
        self.swallowed[way] += swallowed
        if self._is("cut", way):
            self._left -= passed
            if self._left <= 0:
                self._faults = tuple(one for one in self._faults if one.kind != "cut")
                for link in self._links:
                    link.reset()


class _Link:
    """One connection through a line."""

    def __init__(self, line: Line, near: socket.socket, far: socket.socket) -> None:
        self.dead: set[Way] = set()
        self._line = line
        self._near, self._far = near, far
        self._tasks: list[asyncio.Task[None]] = []
        self._is_reset = False
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Pass bytes until both ends closed or the link was reset."""
        loop = asyncio.get_running_loop()
        ways: tuple[tuple[Way, socket.socket, socket.socket], ...] = (
            ("up", self._near, self._far),
            ("down", self._far, self._near),
        )
        self._tasks = [loop.create_task(self._pump(*way)) for way in ways]
        if self._is_reset:
            self.reset()
        done = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        is_broken = self._is_reset or any(not t.cancelled() and t.exception() for t in done[0])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in (self._near, self._far):
            (_reset if is_broken else socket.socket.close)(end)

    def reset(self) -> None:
        """End both halves by RST."""
        if not self._is_reset:
            self._line.events["reset"] += 1
        self._is_reset = True
        for task in self._tasks:
            task.cancel()

    async def _pump(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, _PIECE):
            may = await self._line.admit(way, self, len(data))
            if may:
                await loop.sock_sendall(sink, data[:may])
            self._line.note(way, may, len(data) - may)
        await self._line.admit(way, self, 0)
        if way not in self.dead:
            sink.shutdown(socket.SHUT_WR)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    end.close()
