"""What Prometheus reads: names, labels and meanings as operators' dashboards expect them.

Every child is created with 0 as soon as its labels are known, so that a rate can be taken from the
first event. Labels hold names of studies and sites, methods and codes; never a value from data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from larrey_protocol.disk import DISK_CODES

__all__ = ["Metrics"]

_AUTH_REASONS = ("unknown_key", "not_member", "bad_signature", "bad_invitation")
_MAX_REASONS = 64  # sites choose them; a time series each is for ever
_ROUND_OUTCOMES = ("completed", "no_quorum", "halted", "retried")
_STOPS = ("pause", "halt")
_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0)
_TASK_BUCKETS_S = (1, 10, 60, 300, 900, 3600, 14400, 43200)
_ROUND_BUCKETS_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400, 43200)


class Metrics:
    """The coordinator's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._studies: dict[str, tuple[str, ...]] = {}  # name -> sites
        self._reasons: set[str] = set()  # why answers did not count
        self._began: dict[str, float] = {}  # study -> when its round began, monotonic seconds
        self._build()
        self._build_rounds()
        self._build_sites()
        for reason in _AUTH_REASONS:
            self._auth.labels(reason)

    def expose(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def auth_failure(self, reason: str) -> None:
        """Count a caller who was refused for who it is."""
        self._auth.labels(reason).inc()

    def call_recorder(
        self, method: str, *, timed: bool
    ) -> Callable[[grpc.ServicerContext, float], None]:
        """Return what counts one call of a gRPC method; long polls are counted but not timed."""
        service, _, name = method[1:].partition("/")
        counters = {"OK": self._requests.labels(service, name, "OK")}
        seconds = self._durations.labels(service, name) if timed else None

        def record(context: grpc.ServicerContext, elapsed_s: float) -> None:
            code = _code(context)
            if code not in counters:
                counters[code] = self._requests.labels(service, name, code)
            counters[code].inc()
            if seconds is not None:
                seconds.observe(elapsed_s)

        return record

    def study_known(
        self, study: str, sites: Sequence[str], quorum: int, rounds: int, deadline_s: float
    ) -> None:
        """Create all children of a study."""
        with self._lock:
            self._studies[study] = tuple(sites)
        self._active.labels(study)
        self._number.labels(study)
        self._planned.labels(study).set(rounds)
        self._quorum.labels(study).set(quorum)
        self._enrolled.labels(study).set(len(sites))
        self._available.labels(study)
        self._deadline.labels(study).set(deadline_s)
        self._round_start.labels(study)
        self._last_round.labels(study)
        self._round_seconds.labels(study)
        self.study_waits(study, is_gathering=False, excluded=0)
        self.study_stopped(study, "")
        self.study_stalled(study, is_stalled=False)
        self._rebuilt.labels(study)
        for outcome in _ROUND_OUTCOMES:
            self._rounds.labels(study, outcome)
        for site in sites:
            self._received.labels(study, site)
            self._last_seen.labels(study, site)
            self._late.labels(study, site)
            self._window.labels(site)

    def byte_counter(self, site: str) -> Callable[[float], None]:
        """Return what counts the bytes of messages that arrived from a site."""
        return self._received_bytes.labels(site).inc

    def site_seen(self, site: str) -> None:
        """Note an authenticated contact."""
        now = time.time()
        for study in self._studies_of(site):
            self._last_seen.labels(study, site).set(now)

    def sites_up(self, up: Sequence[str]) -> None:
        """Set how many of each study's sites are there."""
        with self._lock:
            studies = dict(self._studies)
        for study, sites in studies.items():
            self._available.labels(study).set(len(set(sites) & set(up)))

    def site_window(self, site: str, opens_at: float) -> None:
        """Set when a site's next training window opens, seconds since 1970; 0 inside one."""
        self._window.labels(site).set(opens_at)

    def study_waits(self, study: str, *, is_gathering: bool, excluded: int) -> None:
        """Set whether a round waits for sites to begin, and how many sites persons left out."""
        self._gathering.labels(study).set(is_gathering)
        self._excluded.labels(study).set(excluded)

    def update_late(self, study: str, site: str) -> None:
        """Count an answer that came after its round was over."""
        self._late.labels(study, site).inc()

    def task_ended(self, study: str, site: str, kind: str, seconds: float) -> None:
        """Note how long a site took to answer, transfers included."""
        self._task_seconds.labels(study, site, kind).observe(seconds)

    def update_received(self, study: str, site: str) -> None:
        """Count an update that arrived completely."""
        self._received.labels(study, site).inc()

    def update_rejected(self, study: str, site: str, reason: str) -> None:
        """Count an answer that does not count, by its code; past 64 codes as ``other``."""
        with self._lock:
            if len(self._reasons) < _MAX_REASONS:
                self._reasons.add(reason)
            reason = reason if reason in self._reasons else "other"
        self._rejected.labels(study, site, reason).inc()

    def round_began(self, study: str, number: int) -> None:
        """Set the round in progress; 0 when the study is not running."""
        self._number.labels(study).set(number)
        self._active.labels(study).set(1 if number else 0)
        self._round_start.labels(study).set(time.time() if number else 0)
        self._began[study] = time.monotonic()

    def round_ended(self, study: str, outcome: str) -> None:
        """Count an attempt of a round by how it ended: completed, no_quorum, halted or retried."""
        now = time.monotonic()
        if outcome == "completed":
            self._last_round.labels(study).set(time.time())
        self._rounds.labels(study, outcome).inc()
        self._round_seconds.labels(study).observe(now - self._began.get(study, now))

    def study_stopped(self, study: str, stop: str) -> None:
        """Set which order holds a study: pause, halt or none ("")."""
        for one in _STOPS:
            self._stopped.labels(study, one).set(1 if one == stop else 0)

    def study_stalled(self, study: str, *, is_stalled: bool) -> None:
        """Set whether a study stands still because of the coordinator itself."""
        self._stalled.labels(study).set(is_stalled)

    def checkpoint_rebuilt(self, study: str) -> None:
        """Count a checkpoint that was lost or altered and made again."""
        self._rebuilt.labels(study).inc()

    def storage_fault(self, code: str) -> None:
        """Set what keeps the state folder from being written, nothing ("") among it."""
        for one in sorted(DISK_CODES):
            self._storage.labels(one).set(one == code)

    def study_ended(self, study: str, outcome: str) -> None:
        """Count a study by how it ended: complete, partial or failed."""
        self._runs.labels(study, outcome.lower()).inc()
        self.round_began(study, 0)
        self.study_stopped(study, "")
        self.study_waits(study, is_gathering=False, excluded=0)

    def certificate_expires(self, role: str, at: float) -> None:
        """Set when a TLS certificate of ours ends, seconds since 1970."""
        self._expiry.labels(role).set(at)

    def _studies_of(self, site: str) -> list[str]:
        with self._lock:
            return [study for study, sites in self._studies.items() if site in sites]

    def _build(self) -> None:
        info = self._gauge("larrey_build_info", "Constant 1", ["version", "flwr_version"])
        info.labels(version("larrey"), version("flwr")).set(1)
        self._auth = self._counter("larrey_auth_failures", "Callers refused", ["reason"])
        labels = ["service", "method", "code"]
        self._requests = self._counter("larrey_grpc_requests", "Calls of the gRPC port", labels)
        self._durations = Histogram(
            "larrey_grpc_request_duration_seconds",
            "Duration of calls, long polls excluded",
            labels[:2],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        name = "larrey_tls_certificate_expiry_timestamp_seconds"
        self._expiry = self._gauge(name, "notAfter of our certificates", ["role"])
        text = "1 while that keeps the state folder from being written"
        self._storage = self._gauge("larrey_coordinator_storage_fault", text, ["code"])
        self.storage_fault("")

    def _build_rounds(self) -> None:
        one = ["study"]
        self._runs = self._counter("larrey_runs", "Studies ended", ["study", "outcome"])
        self._active = self._gauge("larrey_run_active", "1 while a study runs", one)
        stopped = "1 while an order to pause or halt holds"
        self._stopped = self._gauge("larrey_run_stopped", stopped, ["study", "stop"])
        stalled = "1 while a study stands still because of the coordinator itself"
        self._stalled = self._gauge("larrey_run_stalled", stalled, one)
        rebuilt = "Models that were lost or altered on disk and made again"
        self._rebuilt = self._counter("larrey_checkpoints_rebuilt", rebuilt, one)
        self._number = self._gauge("larrey_round_number", "Round in progress, 0 if none", one)
        self._planned = self._gauge("larrey_rounds_planned", "Rounds the study is to do", one)
        self._quorum = self._gauge("larrey_quorum_required", "Least sites for a round", one)
        self._rounds = self._counter(
            "larrey_rounds", "Attempts of rounds that ended", ["study", "outcome"]
        )
        waits = "1 while a round waits for sites to begin"
        self._gathering = self._gauge("larrey_run_gathering", waits, one)
        name = "larrey_round_start_timestamp_seconds"
        self._round_start = self._gauge(name, "When the round in progress began, 0 if none", one)
        name = "larrey_round_last_completed_timestamp_seconds"
        self._last_round = self._gauge(name, "When a round was last applied, 0 if none", one)
        name = "larrey_round_deadline_seconds"
        self._deadline = self._gauge(name, "The most that a round may take", one)
        self._round_seconds = Histogram(
            "larrey_round_duration_seconds",
            "Wall time of ended rounds",
            one,
            buckets=_ROUND_BUCKETS_S,
            registry=self.registry,
        )

    def _build_sites(self) -> None:
        both = ["study", "site"]
        self._enrolled = self._gauge("larrey_sites_enrolled", "Sites of the study", both[:1])
        self._available = self._gauge("larrey_sites_available", "Sites that are there", both[:1])
        text = "Sites that a person left out until further notice"
        self._excluded = self._gauge("larrey_sites_excluded", text, both[:1])
        name = "larrey_coordinator_site_window_opens_timestamp_seconds"
        text = "When the site's next training window opens, 0 inside one"
        self._window = self._gauge(name, text, both[1:])
        name = "larrey_coordinator_site_last_seen_timestamp_seconds"
        self._last_seen = self._gauge(name, "Last authenticated contact", both)
        self._received = self._counter("larrey_updates_received", "Updates received", both)
        text = "Answers that came after their round was over"
        self._late = self._counter("larrey_updates_late", text, both)
        self._task_seconds = Histogram(
            "larrey_coordinator_site_task_duration_seconds",
            "From the request to the answer, transfers included",
            [*both, "kind"],
            buckets=_TASK_BUCKETS_S,
            registry=self.registry,
        )
        text = "Bytes of requests received from a site"
        self._received_bytes = self._counter("larrey_received_bytes", text, ["site"])
        reasons = [*both, "reason"]
        self._rejected = self._counter("larrey_updates_rejected", "Answers not counted", reasons)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)


def _code(context: Any) -> str:  # Any: code() is missing from grpcio's stubs of ServicerContext
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK"
