"""Which sites are there and when they take work: up while they poll, down when that ends.

Down at once when a poll breaks, else after 30 s of silence. A site outside its training windows
says when the next one opens, by its own clock. Pure bookkeeping over a given clock; the caller acts
on what changed.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

__all__ = ["FARTHEST_S", "SILENCE_S", "Presence", "opening"]

SILENCE_S = 30.0  # a long poll returns within 20 s; half as much again for slow networks
FARTHEST_S = 8 * 86400.0  # windows are of hours of a day; a week and a day covers any calendar
_NEWS_S = 5.0  # windows open by the minute; what differs by less is the same one


class Presence:
    """When each site was last heard of, and from when on it takes work."""

    def __init__(self, clock: Callable[[], float], silence_s: float = SILENCE_S) -> None:
        self._clock = clock
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._heard: dict[str, float] = {}  # only sites that are up
        self._opens: dict[str, float] = {}  # only sites outside a window; seconds since 1970

    def heard(self, site: str) -> bool:
        """Note a sign of life; return True if the site was down until now."""
        now = self._clock()
        with self._lock:
            was_down = site not in self._heard
            self._heard[site] = now
            return was_down

    def opens(self, site: str, at: float) -> bool:
        """Note when a site's next window opens, 0 for one that is open; return whether it is news.

        Args:
            site: its name.
            at: seconds since 1970, as `opening` gives it.
        """
        with self._lock:
            known = self._opens.pop(site, 0.0)
            is_news = abs(at - known) >= _NEWS_S
            if at:
                self._opens[site] = at if is_news else known
            return is_news

    def windows(self) -> dict[str, float]:
        """Return from when on the sites outside a window take work, in seconds since 1970."""
        with self._lock:
            return dict(self._opens)

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


def opening(told: float, now: float) -> float:
    """Return what counts of when a site says that its window opens; 0 for: it is open.

    Whatever a site says, it is waited for no longer than eight days: a time that is over, is none
    or is no number counts as open, a later one than that as eight days from now.

    Args:
        told: seconds since 1970, by the site's clock.
        now: the same, by ours.
    """
    if not told > now:  # NaN is not, either
        return 0.0
    return min(told, now + FARTHEST_S) if math.isfinite(told) else now + FARTHEST_S
