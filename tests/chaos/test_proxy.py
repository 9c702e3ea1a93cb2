"""Each fault of a line really happens: counted in bytes and, at their least, in seconds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from larrey_lab.federation.workspace import free_port
from tests.chaos.proxy import Fault, Line, Network
from tests.system.hospitals import until

_BLOCK = b"x" * 4096


class Echo:
    """A server that sends back what it gets, and counts it."""

    def __init__(self) -> None:
        self.door = socket.create_server(("127.0.0.1", 0))
        self.received = 0
        self.ended = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.door.getsockname()[1])

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self.door.accept()
                threading.Thread(target=self._echo, args=(end,), daemon=True).start()

    def _echo(self, end: socket.socket) -> None:
        with end, suppress(OSError):
            while data := end.recv(1 << 16):
                self.received += len(data)
                end.sendall(data)
        self.ended += 1


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.door.close()


@pytest.fixture
def line(echo: Echo) -> Iterator[Line]:
    with Network() as network:
        yield network.line(echo.port)


def called(line: Line) -> socket.socket:
    end = socket.create_connection(("127.0.0.1", line.port))
    end.settimeout(5)
    return end


def asked(end: socket.socket, data: bytes = _BLOCK) -> bytes:
    """Return what comes back."""
    end.sendall(data)
    found = b""
    while len(found) < len(data) and (part := end.recv(1 << 16)):
        found += part
    return found


def is_silent(end: socket.socket) -> bool:
    end.settimeout(0.1)
    try:
        return not end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5)


def test_a_good_line_passes_every_byte_and_the_end(line: Line, echo: Echo) -> None:
    with called(line) as end:
        assert asked(end) == _BLOCK
        end.shutdown(socket.SHUT_WR)
        assert end.recv(1) == b""
    assert line.passed == {"up": len(_BLOCK), "down": len(_BLOCK)}
    assert line.swallowed.total() == 0
    until(lambda: line.links == 0)


def test_nobody_behind_a_line_shows_as_a_reset() -> None:
    with Network() as network:
        line = network.line(free_port())
        with called(line) as end, pytest.raises(ConnectionResetError):
            end.recv(1)
        until(lambda: line.events["unreachable"] == 1)


def test_latency_delays_each_way(line: Line) -> None:
    with called(line) as end:
        line.strike(Fault("latency", delay_s=0.05))
        began = time.monotonic()
        assert asked(end) == _BLOCK
        assert time.monotonic() - began >= 0.1


def test_a_narrow_line_passes_no_more_than_its_rate(line: Line) -> None:
    with called(line) as end:
        line.strike(Fault("bandwidth", ("up",), rate=1e5))
        began = time.monotonic()
        assert asked(end, bytes(20_000)) == bytes(20_000)
        assert time.monotonic() - began >= 0.2


def test_a_reset_ends_connections_old_and_new_until_healed(line: Line) -> None:
    with called(line) as end:
        assert asked(end) == _BLOCK
        line.strike(Fault("reset"))
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    with called(line) as end, pytest.raises(ConnectionResetError):
        end.recv(1)
    until(lambda: line.events["reset"] == 2)  # counted after it happened
    line.heal()
    with called(line) as end:
        assert asked(end) == _BLOCK


def test_no_connection_that_is_just_being_made_slips_through_a_reset(line: Line) -> None:
    for _ in range(50):
        ends = [called(line) for _ in range(4)]
        line.strike(Fault("reset"))
        for end in ends:
            with end, suppress(ConnectionResetError):
                end.sendall(_BLOCK)
                assert not end.recv(1)
        assert line.passed.total() == 0
        line.heal()


def test_a_stalled_line_takes_and_passes_nothing_and_loses_nothing(line: Line, echo: Echo) -> None:
    with called(line) as old:
        line.strike(Fault("stall"))
        with called(line) as new:
            for end in (old, new):
                end.sendall(_BLOCK)
                assert is_silent(end)
            assert echo.received == line.passed.total() == 0
            line.heal()
            for end in (old, new):
                assert end.recv(1 << 16) == _BLOCK
    assert line.swallowed.total() == line.events["reset"] == 0


@pytest.mark.parametrize("way", ["up", "down"])
def test_one_way_of_a_half_open_connection_swallows_all_for_good(
    line: Line, echo: Echo, way: str
) -> None:
    with called(line) as old:
        assert asked(old) == _BLOCK
        line.strike(Fault("half-open", ("up",) if way == "up" else ("down",)))
        old.sendall(_BLOCK)
        assert is_silent(old)
        until(lambda: line.swallowed.total() == len(_BLOCK))
        assert echo.received == (2 if way == "down" else 1) * len(_BLOCK)
        with called(line) as new:
            assert asked(new) == _BLOCK
            line.heal()
            assert asked(new) == _BLOCK
        with pytest.raises(ConnectionResetError):
            old.recv(1)


def test_an_end_is_swallowed_as_silently_as_a_byte(line: Line, echo: Echo) -> None:
    with called(line) as end:
        assert asked(end) == _BLOCK
        line.strike(Fault("half-open", ("up",)))
    with called(line) as later:
        assert asked(later) == _BLOCK
    until(lambda: echo.ended == 1)
    assert line.links == 1
    line.heal()
    until(lambda: echo.ended == 2)


def test_a_partition_swallows_old_and_new_connections(line: Line, echo: Echo) -> None:
    with called(line) as old:
        line.strike(Fault("partition"))
        with called(line) as new:
            for end in (old, new):
                end.sendall(_BLOCK)
                assert is_silent(end)
            assert echo.received == 0
            assert line.swallowed == {"up": 2 * len(_BLOCK)}
            line.heal()
            for end in (old, new):
                with pytest.raises(ConnectionResetError):
                    end.recv(1)
    with called(line) as end:
        assert asked(end) == _BLOCK


def test_a_cut_comes_after_exactly_so_many_bytes_and_once(line: Line) -> None:
    with called(line) as end:
        line.strike(Fault("cut", ("up",), after=10_000))
        with pytest.raises(ConnectionResetError):
            asked(end, bytes(20_000))
    assert line.passed["up"] == 10_000
    with called(line) as end:
        assert asked(end, bytes(20_000)) == bytes(20_000)
