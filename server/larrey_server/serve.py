"""`larrey serve`: one gRPC port with mutual TLS, the probes, and a clean end.

On SIGTERM or SIGINT everything stops within two seconds: calls end, studies stay where the journal
says they are, and go on at the next start.
"""

from __future__ import annotations

import datetime as dt
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from larrey_protocol.checkup import log_findings
from larrey_protocol.errors import FileError, PortBusy, UsageError
from larrey_protocol.json_log import formatter
from larrey_protocol.streams import STREAM_OPTIONS, reuse_buffers
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.access import AccessRecorder
from larrey_server.control_service import ControlService
from larrey_server.coordinator import Coordinator
from larrey_server.doctor import look_at_start
from larrey_server.enrolment_service import EnrolmentService
from larrey_server.exchange_service import ExchangeService
from larrey_server.flower.fleet import Fleet
from larrey_server.flower.names import fleet_pb2_grpc
from larrey_server.gatekeeper import CONTROL, MAX_CALLS, MAX_WATCHES, POOLS, Gatekeeper
from larrey_server.http import Probes
from larrey_server.metrics import Metrics
from larrey_server.registry import Registry
from larrey_server.server_identity import ServerIdentity
from larrey_server.settings import CoordinatorSettings, load_coordinator, split_address
from larrey_server.studies_service import StudiesService

__all__ = ["Hub", "serve"]

logger = logging.getLogger(__name__)
_GRACE_S = 0.5  # for calls in flight when stopping; long polls are woken before
OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second coordinator silently shares the port
    ("grpc.max_receive_message_length", 8 << 20),  # a chunk is at most 2 MiB
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.max_concurrent_streams", 64),
    *STREAM_OPTIONS,
    ("grpc.keepalive_permit_without_calls", 1),  # else a dead site's connection stays open
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # sites do the same
)


class Hub:
    """A coordinator behind its ports."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        registry = Registry.from_settings(settings)
        self.metrics = Metrics()
        sites = settings.coordinator.max_sites  # pools start threads only as they are needed
        operators = len(settings.operators)
        # Enough of each kind for all that one caller may do at once, times all callers: nobody
        # starves another, nor one kind the others.
        most = dict.fromkeys((*POOLS, CONTROL), MAX_CALLS * (sites + operators) + 8)
        most["watch"] = MAX_WATCHES * operators + 8
        pools = {kind: ThreadPoolExecutor(n, thread_name_prefix=kind) for kind, n in most.items()}
        working = pools[CONTROL]
        gatekeeper = self.gatekeeper = Gatekeeper(registry, self.metrics, pools)
        self._access = AccessRecorder(registry, settings.coordinator.access_log_months, time.time)
        self._pools = tuple(pools.values())
        self._server = grpc.server(
            working, interceptors=[self._access, gatekeeper], options=OPTIONS
        )
        self._identity = ServerIdentity(
            settings.identity,
            now=lambda: dt.datetime.now(dt.UTC),
            renewed=lambda at: self.metrics.certificate_expires("server", at),
        )
        self.address = self._bind(settings)  # before anything is started or written
        self.coordinator = Coordinator(settings, registry, self.metrics)
        self._access.open(settings.coordinator.state)
        self._health = health.HealthServicer()
        self.coordinator.membership.listen(gatekeeper.end_calls)
        self._register(gatekeeper)
        self._probes: Probes | None = None
        try:
            self._start(settings)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all calls and studies; returns within two seconds."""
        self._health.enter_graceful_shutdown()
        if self._probes is not None:
            self._probes.stop()
        stopped = self._server.stop(_GRACE_S)
        self.coordinator.stop()
        stopped.wait(_GRACE_S + 0.5)
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        self._access.close()

    def _start(self, settings: CoordinatorSettings) -> None:
        if settings.listen.metrics:
            self._probes = Probes(
                settings.listen.metrics,
                expose=self.metrics.expose,
                is_ready=self.coordinator.is_sound,
            )
        self.coordinator.resume()
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def _bind(self, settings: CoordinatorSettings) -> str:
        address = settings.listen.address
        host, _ = split_address(address)
        credentials = self._identity.credentials()
        try:
            port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise _not_bound(address, settings) from error
        if not port:
            raise _not_bound(address, settings)
        return f"{host}:{port}"

    def _register(self, gatekeeper: Gatekeeper) -> None:
        coordinator, server = self.coordinator, self._server
        fleet = Fleet(coordinator.engine, gatekeeper.site_of)
        exchange = ExchangeService(coordinator, gatekeeper)
        fleet_pb2_grpc.add_FleetServicer_to_server(fleet, server)
        stubs.add_ExchangeServicer_to_server(exchange, server)  # type: ignore[no-untyped-call]
        studies = StudiesService(coordinator, gatekeeper)
        stubs.add_StudiesServicer_to_server(studies, server)  # type: ignore[no-untyped-call]
        control = ControlService(coordinator, gatekeeper)
        stubs.add_ControlServicer_to_server(control, server)  # type: ignore[no-untyped-call]
        enrolment = EnrolmentService(coordinator.membership, gatekeeper, self.metrics)
        stubs.add_EnrolmentServicer_to_server(enrolment, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)


def serve(config: Path) -> int:
    """Run a coordinator until a signal ends it; return the exit status.

    Raises:
        FileError, PortBusy, Refusal: it could not start; nothing was half-written.
    """
    settings = load_coordinator(config)
    os.environ.setdefault("FLWR_HOME", str(settings.coordinator.state / "flower"))
    lines = logging.StreamHandler()
    lines.setFormatter(formatter())
    logging.basicConfig(handlers=[lines], level="INFO")
    reuse_buffers()
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    log_findings(look_at_start(settings, time.time()), logger)
    hub = Hub(settings)
    sys.stdout.write(f"larrey coordinator ready at {hub.address}\n")
    sys.stdout.flush()
    ended.wait()
    hub.stop()
    return 0


def _not_bound(address: str, settings: CoordinatorSettings) -> UsageError:
    """Return why gRPC did not open the port; it says the same for a bad key and a busy port."""
    try:
        with socket.create_server(split_address(address)):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return PortBusy(
                "port-busy",
                f"expected to listen on {address}, found another process there",
                "Stop it, or choose another [listen] address in coordinator.toml.",
            )
        return UsageError(
            "bad-address",
            f"cannot listen on {address}: {error.strerror}",
            "Choose an address of this machine and a port over 1023.",
        )
    return FileError(
        "invalid-certificate",
        f"gRPC does not take {settings.identity.certificate} with its key and authority",
        "Check that all three are PEM and belong together.",
    )
