"""What a hospital's own monitoring may see: Prometheus text and probes, on loopback unless asked.

Counts, times and budgets of this node; never anything about rows, labels or tensors.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import get_args

from larrey_client.confinement.barriers import BARRIERS, Isolation
from larrey_protocol.disk import DISK_CODES
from larrey_protocol.errors import LarreyError, PortBusy
from larrey_protocol.meters import Meters
from larrey_protocol.refusals import MAY_LEAVE
from larrey_protocol.study import Call

__all__ = ["STATES", "SiteMetrics", "node_version", "serve_metrics"]

STATES = ("idle", "training", "sending", "error")
_SECONDS = (0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600)
_SILENCE_S = 1800.0  # a coordinator's restart or a night's backup of it is no alarm
_TROUBLES = (  # why calls fail; `larrey_client.exchange` has the list
    "coordinator-unreachable",
    "coordinator-timeout",
    "coordinator-busy",
    "coordinator-closed",
    "coordinator-failed",
    "coordinator-too-old",
    "coordinator-untrusted",
    "certificate-refused",
    "upload-incomplete",
    "not-offered",
)


class SiteMetrics:
    """The node's metrics in a registry of their own."""

    def __init__(self, state: Path) -> None:
        self.meters = Meters("larrey_site_")
        self.registry = self.meters.registry
        self._state_folder = state
        self._of_connection()
        self._of_work()
        self._of_node()
        self.meters.gauge("build_info", "Constant 1", "version").labels(node_version()).set(1)
        self._down: set[str] = set()
        self._doing: dict[int, str] = {}  # by thread, what it does beside nothing
        self._lock = threading.Lock()
        self._expiries: dict[str, float] = {}
        self.enter("idle")
        self._create()

    def _of_connection(self) -> None:
        gauge, counter = self.meters.gauge, self.meters.counter
        text = "1 if the last call to each coordinator succeeded"
        self.connected = gauge("connected", text)
        text = "The coordinator's clock less this machine's"
        self.clock_offset = gauge("clock_offset_seconds", text)
        text = "Last good answer of a coordinator; before the first, when the node started"
        self.last_contact = gauge("last_contact_timestamp_seconds", text)
        self.last_contact.set_to_current_time()
        text = "Silence of the coordinator after which this node counts as cut off"
        self.silence = gauge("silence_limit_seconds", text)
        self.silence.set(_SILENCE_S)
        text = "notAfter of the first of the site's certificates to end"
        self.certificate_expiry = gauge("certificate_expiry_timestamp_seconds", text)
        text = "Failed calls to a coordinator, by code"
        self.connection_errors = counter("connection_errors", text, "reason")
        self.sent = counter("sent_bytes", "Bytes sent to the coordinator")
        self.received = counter("received_bytes", "Bytes received from the coordinator")

    def _of_work(self) -> None:
        gauge, counter = self.meters.gauge, self.meters.counter
        self._states = gauge("state", "1 for what the node is doing", "state")
        self.tasks = counter("tasks", "Requests of coordinators that ended", "kind", "outcome")
        text = "Work refused here, by the rule's code"
        self.refusals = counter("policy_refusals", text, "rule")
        text = "Local duration of a request"
        self._duration = self.meters.histogram(
            "task_duration_seconds", text, "kind", buckets=_SECONDS
        )
        self.train_steps = counter("train_steps", "Optimizer steps")
        text = "Studies that wait for a person of this hospital to approve or refuse them"
        self._pending = gauge("pending_approvals", text)
        text = "1 while training may begin at this hour"
        self._window = gauge("window_open", text)

    def _of_node(self) -> None:
        gauge = self.meters.gauge
        self.noise = gauge("dp_noise_multiplier", "Noise multiplier in use")
        text = "Epsilon spent, by the site's own ledger"
        self.spent = gauge("privacy_epsilon_spent", text, "dataset")
        self.budget = gauge("privacy_epsilon_budget", "The site's own limit", "dataset")
        text = "1 unless the rows could not be read, or broke the contract, when last asked for"
        self.data_ready = gauge("data_ready", text, "dataset")
        text = "1 if it stands around the trainer"
        self._isolation = gauge("isolation", text, "barrier")
        text = "1 while it keeps the state folder from being written"
        self._storage = gauge("storage_fault", text, "code")
        self._free = gauge("storage_free_bytes", "Free space of the volume", "volume")
        self._capacity = gauge("storage_capacity_bytes", "Size of the volume", "volume")

    def _create(self) -> None:
        """Create the children that are known, so that the first event is an increase."""
        for kind in (*get_args(Call), "other"):
            self._duration.labels(kind)
            for outcome in ("ok", "refused", "failed"):
                self.tasks.labels(kind, outcome)
        for code in sorted(MAY_LEAVE):
            self.refusals.labels(code)
        for code in _TROUBLES:
            self.connection_errors.labels(code)

    def watch_pending(self, ask: Callable[[], int]) -> None:
        """Show how many studies wait for a person, as it is when somebody looks."""

        def pending() -> float:
            try:
                return float(ask())
            except (sqlite3.Error, LarreyError):  # the rest is shown all the same
                return float("nan")

        self._pending.set_function(pending)

    def watch_window(self, ask: Callable[[], float]) -> None:
        """Show whether training may begin; ``ask`` returns when it may next, 0 for now."""
        self._window.set_function(lambda: float(not ask()))

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
        return self.meters.expose()


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
