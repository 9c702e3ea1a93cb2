"""When a study stands still, why, and when it is tried again; its clock stands still with it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Standstill"]

_FIRST_S, _LONGEST_S = 1.0, 30.0  # pauses between trials; each is twice the one before
_CALM_S = 60.0  # after which a trial succeeded; what fails again before was not over


class Standstill:
    """One study's; `now` may be asked from any thread, all else belongs to one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a clock of monotonic seconds, which always goes."""
        self._clock = clock
        self._pause_s = _FIRST_S
        self._again_at = 0.0
        self._went_on_at = -_CALM_S
        self._stood: tuple[float, float | None] = 0.0, None  # seconds so far; since when again
        self.code = ""  # why, empty while the study goes on

    def now(self) -> float:
        """Return the seconds of the clock without those in which the study stood still."""
        lost, since = self._stood
        return (self._clock() if since is None else since) - lost

    def begin(self, code: str, pause_s: float = 0.0) -> bool:
        """Stand still, or go on doing so; return whether that, or the reason, is news.

        It is tried again after ``pause_s`` seconds, or where that is 0 after a pause that grows.
        """
        is_news, self.code = code != self.code, code
        lost, since = self._stood
        if since is None:
            self._stood = lost, self._clock()
            if self._clock() - self._went_on_at >= _CALM_S:
                self._pause_s = _FIRST_S
        self._again_at = self._clock() + (pause_s or self._pause_s)
        if not pause_s:
            self._pause_s = min(_LONGEST_S, 2 * self._pause_s)
        return is_news

    def left(self) -> float:
        """Return after how many seconds to try again, 0 while the study goes on."""
        return max(0.0, self._again_at - self._clock()) if self.code else 0.0

    def end(self) -> bool:
        """Go on; return whether the study stood still until now."""
        lost, since = self._stood
        if since is None:
            return False
        self._stood = lost + self._clock() - since, None
        self.code, self._went_on_at = "", self._clock()
        return True
