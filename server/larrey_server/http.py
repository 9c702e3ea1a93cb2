"""Metrics and probes over plain HTTP, for the machine itself: /metrics, /livez, /readyz.

Reads only; anything but these three paths is 404. Listens where the settings say, loopback by
default, because the text names studies and sites.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from larrey_protocol.errors import PortBusy
from larrey_server.settings import split_address

__all__ = ["Probes"]

_TIMEOUT_S = 10.0  # of one request


class Probes:
    """A small HTTP server in its own thread."""

    def __init__(
        self, address: str, *, expose: Callable[[], bytes], is_ready: Callable[[], bool]
    ) -> None:
        host, port = split_address(address)
        try:
            self._server = _Server((host, port), _handler(expose, is_ready))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortBusy(
                "port-busy",
                f"expected to serve metrics on {address}, found another process there",
                "Stop it, or set [listen] metrics to a free address.",
            ) from error
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="probes", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def _handler(
    expose: Callable[[], bytes], is_ready: Callable[[], bool]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S
        server_version = "larrey"
        sys_version = ""

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, expose(), "text/plain; version=0.0.4; charset=utf-8")
            elif self.path == "/livez":
                self._answer(200, b"alive\n")
            elif self.path == "/readyz":
                ready = is_ready()
                self._answer(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
            else:
                self._answer(404, b"not found\n")

        def log_message(self, *_: object) -> None:
            """Stay silent: a scrape every few seconds is no news."""

        def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
