"""Both ends of a connection learn that the other one is gone, although nothing says so."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from larrey_client.exchange import OPTIONS as SITE_OPTIONS
from larrey_server.serve import OPTIONS as COORDINATOR_OPTIONS
from tests.chaos.proxy import UP_DOWN, Fault, Network, Way
from tests.system.hospitals import until

_FASTER = 100
_LIMIT_S = 15.0  # a hundredth of the promised seconds would do; grpcio's own patience is a minute
Options = list[tuple[str, Any]]


def faster(options: Iterable[tuple[str, Any]]) -> Options:
    """Return the product's options with all times about silence a hundred times shorter."""
    return [
        (name, value // _FASTER if name.endswith("_ms") and _is_of_silence(name) else value)
        for name, value in options
    ]


def _is_of_silence(name: str) -> bool:
    return "keepalive" in name or "ping" in name


class Waiting:
    """A server whose one call waits until its caller is gone."""

    def __init__(self) -> None:
        self.begun, self.is_gone = threading.Event(), threading.Event()
        pool = ThreadPoolExecutor(2)
        self.server = grpc.server(pool, options=faster(COORDINATOR_OPTIONS))
        handlers = {
            "Wait": grpc.unary_unary_rpc_method_handler(self._wait),
            "Ask": grpc.unary_unary_rpc_method_handler(lambda request, _: request),
        }
        service = grpc.method_handlers_generic_handler("test", handlers)
        self.server.add_generic_rpc_handlers((service,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.add_callback(self.is_gone.set)
        self.begun.set()
        self.is_gone.wait(_LIMIT_S)
        return b""


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.server.stop(0).wait()


@pytest.mark.parametrize("ways", [("up",), ("down",), UP_DOWN])
def test_a_connection_that_died_silently_is_given_up_at_both_ends(
    waiting: Waiting, ways: tuple[Way, ...]
) -> None:
    with Network() as network:
        line = network.line(waiting.port)
        with grpc.insecure_channel(f"127.0.0.1:{line.port}", faster(SITE_OPTIONS)) as channel:
            call = channel.unary_unary("/test/Wait").future(b"", timeout=_LIMIT_S)
            assert waiting.begun.wait(_LIMIT_S)
            line.strike(Fault("half-open", ways))
            error = call.exception()
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # and not: its time was over
            assert waiting.is_gone.wait(_LIMIT_S / 2)
            assert line.events["reset"] == 0


def test_a_connection_without_calls_whose_site_vanished_is_closed(waiting: Waiting) -> None:
    with Network() as network:
        line = network.line(waiting.port)
        with grpc.insecure_channel(f"127.0.0.1:{line.port}", faster(SITE_OPTIONS)) as channel:
            assert channel.unary_unary("/test/Ask")(b"", timeout=_LIMIT_S) == b""
            line.strike(Fault("half-open", ("up",)))
            until(lambda: line.links == 0, _LIMIT_S)
            assert line.events["reset"] == 0
