"""Which sites are there: up while they poll, down when their poll breaks or after 30 s of silence.

Pure bookkeeping over a given clock; the caller acts on what changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["SILENCE_S", "Presence"]

SILENCE_S = 30.0  # a long poll returns within 20 s; half as much again for slow networks


class Presence:
    """When each site was last heard of."""

    def __init__(self, clock: Callable[[], float], silence_s: float = SILENCE_S) -> None:
        self._clock = clock
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._heard: dict[str, float] = {}  # only sites that are up

    def heard(self, site: str) -> bool:
        """Note a sign of life; return True if the site was down until now."""
        now = self._clock()
        with self._lock:
            was_down = site not in self._heard
            self._heard[site] = now
            return was_down

    def silent(self) -> tuple[str, ...]:
        """Return the sites that have been silent for too long, and call them down."""
        limit = self._clock() - self._silence_s
        with self._lock:
            gone = tuple(site for site, at in self._heard.items() if at < limit)
            for site in gone:
                del self._heard[site]
            return gone

    def lost(self, site: str) -> bool:
        """Call a site down whose connection broke; return True if it was up until now."""
        with self._lock:
            return self._heard.pop(site, None) is not None

    def up(self) -> tuple[str, ...]:
        """Return the sites that are there."""
        with self._lock:
            return tuple(self._heard)
