"""The turn at this site's one trainer: who waited longest is next, whichever membership asks."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

__all__ = ["Turn"]


class Turn:
    """A lock that serves its waiters in the order in which they came; not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._is_held = False

    def acquire(self, timeout: float = -1) -> bool:
        """Wait for the turn, at most ``timeout`` seconds if it is not negative."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            is_mine = self._changed.wait_for(
                lambda: not self._is_held and self._line[0] is ticket,
                None if timeout < 0 else timeout,
            )
            self._line.remove(ticket)
            if is_mine:
                self._is_held = True
            self._changed.notify_all()
            return is_mine

    def release(self) -> None:
        """Let the next one have the turn.

        Raises:
            RuntimeError: nobody has it.
        """
        with self._changed:
            if not self._is_held:
                raise RuntimeError("the turn is nobody's")
            self._is_held = False
            self._changed.notify_all()

    def __enter__(self) -> Turn:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
