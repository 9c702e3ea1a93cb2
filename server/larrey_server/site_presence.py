"""Tells every running study which sites are there, and from when on those outside a window are.

One lock around noting and telling, so that all conductors hear of comings, goings and windows in
the order in which they happened; a conductor that begins meanwhile misses none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from larrey_server.conductor import Conductor
from larrey_server.flower.engine import Engine
from larrey_server.metrics import Metrics
from larrey_server.presence import Presence, opening

__all__ = ["SitePresence"]

logger = logging.getLogger(__name__)


class SitePresence:
    """The comings and goings of one coordinator's sites; thread-safe."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        conductors: Callable[[], Iterable[Conductor]],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._conductors = conductors
        self._wall = wall
        self._presence = Presence(clock)
        self._comings = threading.Lock()

    def heard(self, site: str, opens_at: float | None = None) -> None:
        """Note a sign of life of a site.

        Args:
            site: its name.
            opens_at: when its next training window opens, seconds since 1970 by its own clock, 0
                inside one; None where the call does not say.
        """
        self._metrics.site_seen(site)
        with self._comings:
            if opens_at is not None:  # before it is up: it is not to be sent what it cannot do
                self._window(site, opening(opens_at, self._wall()))
            is_back = self._presence.heard(site)
            if is_back:
                self._came(site)
        if not is_back:
            self._engine.heartbeat(site)

    def lost(self, site: str) -> None:
        """Note that a site's connection broke, as it does at once when its node is killed."""
        with self._comings:
            if self._presence.lost(site):
                self._gone(site)

    def look(self) -> None:
        """Call the sites down that have been silent for too long."""
        with self._comings:
            for site in self._presence.silent():
                self._gone(site)

    def introduce(
        self, conductor: Conductor, sites: Iterable[str], begin: Callable[[], None]
    ) -> None:
        """Let a conductor begin something with these sites, then tell it which of them are there.

        What happens to a site meanwhile, the conductor hears after.
        """
        with self._comings:
            begin()
            known = set(sites)
            for site, at in self._presence.windows().items():
                if site in known:
                    conductor.site_window(site, opening(at, self._wall()))
            for site in self._presence.up():
                if site in known:
                    conductor.site_up(site)

    def _window(self, site: str, at: float) -> None:
        if not self._presence.opens(site, at):
            return
        logger.info("site window site=%s opens_at=%.0f", site, at)
        self._metrics.site_window(site, at)
        for conductor in self._conductors():
            conductor.site_window(site, at)

    def _came(self, site: str) -> None:
        self._engine.activate(site)
        logger.info("site up site=%s", site)
        self._metrics.sites_up(self._presence.up())
        for conductor in self._conductors():
            conductor.site_up(site)

    def _gone(self, site: str) -> None:
        logger.warning("site down site=%s", site)
        self._metrics.sites_up(self._presence.up())
        for conductor in self._conductors():
            conductor.site_down(site)
