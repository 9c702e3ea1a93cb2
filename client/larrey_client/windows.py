"""When a site trains: hours of the day on the wall clock of one place. Pure.

A moment is inside a window if the clock on the wall shows a time in it. So in the night in which
clocks go forward a window is shorter, or does not happen; in the night in which they go back it is
longer, or happens twice. Windows may touch, overlap and go over midnight. No window means always.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["WINDOW", "Windows", "make_windows", "zone_of"]

WINDOW = r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$"
_DAY = 24 * 60  # minutes
_MINUTE_S = 60.0
_SLACK_S = 30.0  # clocks differ, and a request may have been on its way when the window closed
_FARTHEST = 8 * _DAY  # no zone ever skipped more than a day


@dataclass(frozen=True, slots=True)
class Windows:
    """The hours in which training may begin.

    Attributes:
        spans: first minute of the day and the one after the last; beyond 1440 it is the next day's.
        zone: of the wall clock; None for the machine's.
    """

    spans: tuple[tuple[int, int], ...] = ()
    zone: dt.tzinfo | None = None

    def is_open(self, at: float) -> bool:
        """Return whether a moment (seconds since 1970) is inside a window."""
        if not self.spans:
            return True
        wall = dt.datetime.fromtimestamp(at, self.zone)
        minute = wall.hour * 60 + wall.minute
        return any(a <= minute < b or a <= minute + _DAY < b for a, b in self.spans)

    def opens_at(self, now: float) -> float:
        """Return when the next window opens, in seconds since 1970; 0.0 while one is open."""
        if self.is_open(now):
            return 0.0
        minute = now // _MINUTE_S  # offsets from UTC and their changes are whole minutes
        for ahead in range(1, _FARTHEST):
            at = (minute + ahead) * _MINUTE_S
            if self.is_open(at):
                return at
        raise ValueError("a window of the day did not come in a week")

    def admits(self, at: float) -> bool:
        """Return whether a request may begin now: inside a window, give or take half a minute."""
        return any(self.is_open(moment) for moment in (at, at - _SLACK_S, at + _SLACK_S))


def make_windows(texts: Iterable[str], zone: str) -> Windows:
    """Return the windows of e.g. ``22:00-06:00`` in a zone, "" for the machine's.

    Raises:
        ValueError: a text is no window, or the zone is unknown.
    """
    return Windows(tuple(map(_span, texts)), zone_of(zone))


def zone_of(name: str) -> dt.tzinfo | None:
    """Return a time zone by its IANA name, None for "".

    Raises:
        ValueError: no such zone is installed; the text names the nearest.
    """
    if not name:
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        known = zoneinfo.available_timezones()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else "; is the system's tzdata installed?"
        raise ValueError(f"no time zone is called '{name[:60]}' here{hint}") from None


def _span(text: str) -> tuple[int, int]:
    if not re.fullmatch(WINDOW, text):
        raise ValueError(f"'{text[:30]}' is no window such as 22:00-06:00")
    start, end = (60 * int(part[:2]) + int(part[3:]) for part in text.split("-"))
    if start == end:
        raise ValueError(f"'{text}' is empty; windows = [] means always")
    return start, end if end > start else end + _DAY
