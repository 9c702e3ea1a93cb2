"""What a hospital's own monitoring may see: Prometheus text and probes, on loopback unless asked.

Counts, times and budgets of this node; never anything about rows, labels or tensors.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from larrey_client.confinement.barriers import BARRIERS, Isolation
from larrey_protocol.disk import DISK_CODES
from larrey_protocol.errors import PortBusy

__all__ = ["STATES", "SiteMetrics", "node_version", "serve_metrics"]

STATES = ("idle", "training", "sending", "error")
_SECONDS = (0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600)


class SiteMetrics:
    """The node's metrics in a registry of their own."""

    def __init__(self, state: Path) -> None:
        self.registry = CollectorRegistry()
        self._state_folder = state
        self.connected = self._gauge("connected", "1 if the last call to the coordinator succeeded")
        self.clock_offset = self._gauge(
            "clock_offset_seconds", "the coordinator's clock less this machine's"
        )
        self.last_contact = self._gauge("last_contact_timestamp_seconds", "last good answer")
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds", "notAfter of the site's identity"
        )
        self.connection_errors = self._counter("connection_errors", "failed calls", "reason")
        self.tasks = self._counter("tasks", "requests ended", "kind", "outcome")
        self.refusals = self._counter("policy_refusals", "work refused here", "rule")
        self.train_steps = self._counter("train_steps", "optimizer steps")
        self.sent = self._counter("sent_bytes", "bytes sent to the coordinator")
        self.received = self._counter("received_bytes", "bytes received from the coordinator")
        self.noise = self._gauge("dp_noise_multiplier", "noise multiplier in use")
        self.spent = self._gauge("privacy_epsilon_spent", "by the site's own ledger", "dataset")
        self.budget = self._gauge("privacy_epsilon_budget", "the site's own limit", "dataset")
        self._isolation = self._gauge("isolation", "1 if it stands around the trainer", "barrier")
        fault = "1 while it keeps the state folder from being written"
        self._storage = self._gauge("storage_fault", fault, "code")
        self._states = self._gauge("state", "1 for what the node is doing", "state")
        self._free = self._gauge("storage_free_bytes", "free space", "volume")
        self._capacity = self._gauge("storage_capacity_bytes", "size of the volume", "volume")
        self._duration = Histogram(
            "larrey_site_task_duration_seconds",
            "local duration of a request",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        info = self._gauge("build_info", "constant 1", "version")
        info.labels(node_version()).set(1)
        self._down: set[str] = set()
        self._doing: dict[int, str] = {}  # by thread, what it does beside nothing
        self._lock = threading.Lock()
        self._expiries: dict[str, float] = {}
        self.enter("idle")

    def connection(self, membership: str, *, is_up: bool) -> None:
        """Say how a membership's last call ended; the gauge is 1 while none of them failed."""
        (self._down.discard if is_up else self._down.add)(membership)
        self.connected.set(not self._down)

    def expires(self, membership: str, at: float) -> None:
        """Say when a membership's certificate ends; the gauge shows the first to end."""
        self._expiries[membership] = at
        self.certificate_expiry.set(min(self._expiries.values()))

    def enter(self, state: str) -> None:
        """Say what this thread is doing now; the node is idle while none does anything."""
        with self._lock:
            self._doing.pop(threading.get_ident(), None)
            if state != "idle":
                self._doing[threading.get_ident()] = state
            now = set(self._doing.values()) or {"idle"}
            for name in STATES:
                self._states.labels(name).set(name in now)

    def count_bytes(self, sent: int, received: int) -> None:
        """Add bytes that crossed the border."""
        self.sent.inc(sent)
        self.received.inc(received)

    def watch_storage(self, ask: Callable[[], str]) -> None:
        """Show what keeps the state folder from being written, as it is when somebody looks."""

        def holds(code: str) -> Callable[[], float]:
            return lambda: float(ask() == code)

        for code in sorted(DISK_CODES):
            self._storage.labels(code).set_function(holds(code))

    def watch_isolation(self, ask: Callable[[], Isolation | None]) -> None:
        """Show the trainer's barriers as they are when somebody looks."""

        def stands(name: str) -> Callable[[], float]:
            return lambda: float(name in isolation.stands if (isolation := ask()) else False)

        for name in BARRIERS:
            self._isolation.labels(name).set_function(stands(name))

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Measure one request."""
        start = perf_counter()
        try:
            yield
        finally:
            self._duration.labels(kind).observe(perf_counter() - start)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        volume = os.statvfs(self._state_folder)
        self._free.labels("state").set(volume.f_bavail * volume.f_frsize)
        self._capacity.labels("state").set(volume.f_blocks * volume.f_frsize)
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"larrey_site_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"larrey_site_{name}", text, labels, registry=self.registry)


@cache
def node_version() -> str:
    """Return the version of the installed distribution, whichever wheel it came in; read once."""
    for distribution in ("larrey-node", "larrey"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "0"


def serve_metrics(
    address: str,
    metrics: SiteMetrics,
    is_ready: Callable[[], bool],
    is_registered: Callable[[], bool],
) -> ThreadingHTTPServer:
    """Return a running server of ``/metrics``, ``/livez`` and ``/readyz``; shut it down to end it.

    Args:
        address: host and port.
        metrics: what is shown.
        is_ready: whether a coordinator answered lately, for ``/readyz``.
        is_registered: whether one ever did, for ``/livez``: a node that runs and was never admitted
            is started again, where somebody sees it, and an outage later on ends no training.

    Raises:
        PortBusy: another process has the address.
    """
    host, _, port = address.rpartition(":")

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            asked = {"/readyz": is_ready, "/livez": is_registered}.get(self.path)
            ready = asked is None or asked()
            body = {"/metrics": metrics.text, "/livez": _ok, "/readyz": _ok}.get(self.path)
            self.send_response(404 if body is None else 200 if ready else 503)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            if body is not None:
                self.wfile.write(body() if ready else b"no coordinator answers\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its signature
            return

    try:
        server = ThreadingHTTPServer((host, int(port)), Handler)
    except OSError as error:
        raise PortBusy(
            "port-busy",
            f"another process listens on {address}",
            "Set site.metrics to a free port, or to an empty text to switch it off.",
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()
    return server


def _ok() -> bytes:
    return b"ok\n"
