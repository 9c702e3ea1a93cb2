"""Wakes the one long poll of a site.

A newer poll of the same site displaces the older one, so that a reconnecting or misbehaving site
holds at most one waiting place. No clock of its own: the caller says how long to wait.
"""

from __future__ import annotations

import threading

__all__ = ["Doorbell"]


class Doorbell:
    """A counter of rings that one guest at a time waits on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0
        self._guest = 0
        self._waiting = 0

    @property
    def rings(self) -> int:
        """Return how often it rang; read it before looking for work."""
        return self._rings

    @property
    def is_waited_on(self) -> bool:
        """Return whether somebody waits right now."""
        return self._waiting > 0

    def ring(self) -> None:
        """Wake whoever waits."""
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    def enter(self) -> int:
        """Return the ticket of a new guest and displace the one before."""
        with self._changed:
            self._guest += 1
            self._changed.notify_all()
            return self._guest

    def is_displaced(self, guest: int) -> bool:
        """Return whether a newer guest came."""
        return guest != self._guest

    def wait(self, guest: int, heard: int, timeout_s: float) -> None:
        """Return when it rang after ``heard``, the guest is displaced, or the time is over."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(
                lambda: self._rings != heard or self._guest != guest, timeout=max(0.0, timeout_s)
            )
            self._waiting -= 1
