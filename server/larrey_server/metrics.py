"""What Prometheus reads: names, labels and meanings as operators' dashboards expect them.

Every child is created with 0 as soon as its labels are known, so that a rate can be taken from the
first event. Labels hold names of studies and sites, methods and codes; never a value from data.
Only so many studies have series; a study's are removed when it is closed, and come back for nobody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc

from larrey_protocol.disk import DISK_CODES
from larrey_server.metric_families import CHECKED, ROUND_OUTCOMES, STOPS, Families
from larrey_server.presence import SILENCE_S

__all__ = ["MOST_STUDIES", "Metrics"]

MOST_STUDIES = 100  # with series of their own; a hundred times fifty sites is a scrape of 10 MB
_AUTH_REASONS = ("unknown_key", "not_member", "bad_signature", "bad_invitation")
_MAX_REASONS = 64  # sites choose them; a time series each is for ever
_FAULTS = ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "RESOURCE_EXHAUSTED")
_RUNNING = frozenset({"gathering", "open", "closing"})


class Metrics:
    """The coordinator's metrics in a registry of their own; thread-safe."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.families = Families()
        self.registry = self.families.registry
        self._wall = wall
        self._lock = threading.RLock()
        self._studies: dict[str, tuple[str, ...]] = {}  # name -> sites; only those with series
        self._ended: list[str] = []  # of those, in order; they make room for others
        self._active: set[str] = set()  # those that have rounds to do
        self._up: frozenset[str] = frozenset()
        self._unshown: set[str] = set()
        self._reasons: set[str] = set(CHECKED)  # why answers did not count
        self._began: dict[str, float] = {}  # study -> when its round began, monotonic seconds
        self._volume: Path | None = None
        self.families.info.labels(version("larrey"), version("flwr")).set(1)
        self.storage_fault("")
        for reason in _AUTH_REASONS:
            self.families.auth.labels(reason)

    def expose(self) -> bytes:
        """Return the text that Prometheus scrapes."""
        if self._volume is not None:
            with suppress(OSError):  # a disk that is gone is told by its own metric
                volume = os.statvfs(self._volume)
                self.families.free.labels("state").set(volume.f_bavail * volume.f_frsize)
                self.families.capacity.labels("state").set(volume.f_blocks * volume.f_frsize)
        return self.families.expose()

    def watch_volume(self, folder: Path) -> None:
        """Show the free space of the file system that the state folder is on."""
        self._volume = folder

    def auth_failure(self, reason: str) -> None:
        """Count a caller who was refused for who it is."""
        self.families.auth.labels(reason).inc()

    def call_recorder(
        self, method: str, *, timed: bool
    ) -> Callable[[grpc.ServicerContext, float], None]:
        """Return what counts one call of a gRPC method; long polls are counted but not timed."""
        service, _, name = method[1:].partition("/")
        requests = self.families.requests
        counters = {code: requests.labels(service, name, code) for code in ("OK", *_FAULTS)}
        seconds = self.families.durations.labels(service, name) if timed else None

        def record(context: grpc.ServicerContext, elapsed_s: float) -> None:
            code = _code(context)
            if code not in counters:
                counters[code] = requests.labels(service, name, code)
            counters[code].inc()
            if seconds is not None:
                seconds.observe(elapsed_s)

        return record

    def study_known(
        self,
        study: str,
        sites: Sequence[str],
        quorum: int,
        rounds: int,
        deadline_s: float,
        *,
        epsilon: float | None = None,
    ) -> None:
        """Create all children of a study, unless as many as may be are shown and none has ended."""
        all_ = self.families
        with self._lock:
            if not self._has_room(study):
                self._unshown.add(study)
                all_.unshown.set(len(self._unshown))
                return
            is_new = study not in self._studies
            self._studies[study] = tuple(sites)
            if study in self._ended:
                self._ended.remove(study)
            all_.planned.labels(study).set(rounds)
            all_.quorum.labels(study).set(quorum)
            all_.enrolled.labels(study).set(len(sites))
            all_.available.labels(study).set(len(self._up.intersection(sites)))
            all_.deadline.labels(study).set(deadline_s)
            if is_new:
                self._create(study, sites)
            if epsilon is not None:
                for site in sites:
                    all_.budget.labels(study, site).set(epsilon)
                    all_.spent.labels(study, site)

    def study_closed(self, study: str) -> None:
        """Remove every series of a study; what is told of it afterwards counts nowhere."""
        with self._lock:
            self._began.pop(study, None)
            self._active.discard(study)
            self._unshown.discard(study)
            self.families.unshown.set(len(self._unshown))
            if self._studies.pop(study, None) is not None:
                self.families.forget(study)
            if study in self._ended:
                self._ended.remove(study)

    def _has_room(self, study: str) -> bool:
        if study in self._studies or len(self._studies) < MOST_STUDIES:
            return True
        if self._ended:
            self.study_closed(self._ended[0])
            return True
        return False

    def _create(self, study: str, sites: Sequence[str]) -> None:
        """Create the children of a study that is new, so that its first event is an increase."""
        all_, now = self.families, self._wall()
        for gauge in (all_.active, all_.number, all_.round_start, all_.waiting):
            gauge.labels(study)
        for one in (all_.stalled, all_.gathering, all_.excluded, all_.rebuilt):
            one.labels(study)
        for family in (all_.round_seconds, all_.update_bytes):
            family.labels(study)
        all_.last_round.labels(study).set(now)
        for stop in STOPS:
            all_.stopped.labels(study, stop)
        for outcome in ROUND_OUTCOMES:
            all_.rounds.labels(study, outcome)
        for outcome in ("complete", "partial", "failed", "closed"):
            all_.runs.labels(study, outcome)
        for site in sites:
            self._create_site(study, site, now)

    def _create_site(self, study: str, site: str, now: float) -> None:
        all_ = self.families
        all_.received.labels(study, site)
        all_.late.labels(study, site)
        all_.last_seen.labels(study, site).set(now)
        all_.silence.labels(study, site).set(SILENCE_S)
        all_.window.labels(site)
        for reason in CHECKED:
            all_.rejected.labels(study, site, reason)

    def byte_counter(self, site: str) -> Callable[[float], None]:
        """Return what counts the bytes of messages that arrived from a site."""
        return self.families.received_bytes.labels(site).inc

    def site_seen(self, site: str) -> None:
        """Note an authenticated contact."""
        now = self._wall()
        with self._lock:
            for study, sites in self._studies.items():
                if site in sites:
                    self.families.last_seen.labels(study, site).set(now)

    def sites_up(self, up: Sequence[str]) -> None:
        """Set how many of each study's sites are there."""
        with self._lock:
            self._up = frozenset(up)
            for study, sites in self._studies.items():
                self.families.available.labels(study).set(len(self._up.intersection(sites)))

    def site_window(self, site: str, opens_at: float) -> None:
        """Set when a site's next training window opens, seconds since 1970; 0 inside one."""
        self.families.window.labels(site).set(opens_at)

    def site_certificate(self, site: str, expires_at: float) -> None:
        """Set when the certificate ends that a site called with, seconds since 1970."""
        self.families.site_expiry.labels(site).set(expires_at)

    def site_gone(self, site: str) -> None:
        """Remove what is shown of a site whose membership ended, studies apart."""
        for family in (self.families.window, self.families.site_expiry):
            family.remove_by_labels({"site": site})

    def study_stands(
        self,
        study: str,
        state: str,
        number: int,
        *,
        excluded: int,
        waiting: int,
        epsilon: Sequence[tuple[str, float]],
    ) -> None:
        """Set where a study stands.

        Args:
            study: its name.
            state: of its round machine: gathering, open, closing, paused, ended and so on.
            number: of the round, from 1.
            excluded: how many sites persons left out.
            waiting: how many sites answered in the open round.
            epsilon: of each site whose receipts say it.
        """
        all_, is_active = self.families, state in _RUNNING
        with self._lock:
            if study not in self._studies:
                return
            if is_active and study not in self._active:
                all_.last_round.labels(study).set(self._wall())
            (self._active.add if is_active else self._active.discard)(study)
            all_.active.labels(study).set(is_active)
            all_.number.labels(study).set(number if is_active else 0)
            all_.gathering.labels(study).set(state == "gathering")
            all_.excluded.labels(study).set(excluded)
            all_.waiting.labels(study).set(waiting if is_active else 0)
            if state in {"open", "closing"}:
                self._opened(study, is_again=False)
            else:
                all_.round_start.labels(study).set(0)
                self._began.pop(study, None)
            for site, spent in epsilon:
                if site in self._studies[study]:
                    all_.spent.labels(study, site).set(spent)

    def update_late(self, study: str, site: str) -> None:
        """Count an answer that came after its round was over."""
        with self._lock:
            if study in self._studies:
                self.families.late.labels(study, site).inc()

    def task_ended(self, study: str, site: str, kind: str, seconds: float) -> None:
        """Note how long a site took to answer, transfers included."""
        with self._lock:
            if study in self._studies:
                self.families.task_seconds.labels(study, site, kind).observe(seconds)

    def update_received(self, study: str, site: str, nbytes: int) -> None:
        """Count an update that arrived completely, and its size."""
        with self._lock:
            if study in self._studies:
                self.families.received.labels(study, site).inc()
                self.families.update_bytes.labels(study).observe(nbytes)

    def update_rejected(self, study: str, site: str, reason: str) -> None:
        """Count an answer that does not count, by its code; past 64 codes as ``other``."""
        with self._lock:
            if study not in self._studies:
                return
            if len(self._reasons) < _MAX_REASONS:
                self._reasons.add(reason)
            reason = reason if reason in self._reasons else "other"
            self.families.rejected.labels(study, site, reason).inc()

    def round_began(self, study: str) -> None:
        """Note that an attempt of a round was opened."""
        with self._lock:
            if study in self._studies:
                self._opened(study, is_again=True)

    def _opened(self, study: str, *, is_again: bool) -> None:
        if is_again or study not in self._began:
            self.families.round_start.labels(study).set(self._wall())
            self._began[study] = time.monotonic()

    def round_ended(self, study: str, outcome: str) -> None:
        """Count an attempt of a round by how it ended: completed, no_quorum, halted or retried."""
        now = time.monotonic()
        with self._lock:
            if study not in self._studies:
                return
            if outcome == "completed":
                self.families.last_round.labels(study).set(self._wall())
            self.families.rounds.labels(study, outcome).inc()
            began = self._began.pop(study, now)
            self.families.round_seconds.labels(study).observe(now - began)

    def study_stopped(self, study: str, stop: str) -> None:
        """Set which order holds a study: pause, halt or none ("")."""
        with self._lock:
            for one in STOPS if study in self._studies else ():
                self.families.stopped.labels(study, one).set(1 if one == stop else 0)

    def study_stalled(self, study: str, *, is_stalled: bool) -> None:
        """Set whether a study stands still because of the coordinator itself."""
        with self._lock:
            if study in self._studies:
                self.families.stalled.labels(study).set(is_stalled)

    def checkpoint_rebuilt(self, study: str) -> None:
        """Count a checkpoint that was lost or altered and made again."""
        with self._lock:
            if study in self._studies:
                self.families.rebuilt.labels(study).inc()

    def storage_fault(self, code: str) -> None:
        """Set what keeps the state folder from being written, nothing ("") among it."""
        for one in sorted(DISK_CODES):
            self.families.storage.labels(one).set(one == code)

    def study_ended(self, study: str, outcome: str) -> None:
        """Count a study by how it ended: complete, partial, failed or closed."""
        with self._lock:
            if study in self._studies:
                self.families.runs.labels(study, outcome.lower()).inc()
                self._ended.append(study)
        self.study_stopped(study, "")

    def certificate_expires(self, role: str, at: float) -> None:
        """Set when a TLS certificate of ours ends, seconds since 1970."""
        self.families.expiry.labels(role).set(at)


def _code(context: Any) -> str:  # Any: code() is missing from grpcio's stubs of ServicerContext
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK"
