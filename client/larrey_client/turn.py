"""The turn at this site's one trainer: who waited longest is next, whichever membership asks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        ticket = self._stand()
        is_mine = self._wait(ticket, None if timeout < 0 else timeout)
        if not is_mine:
            self._leave(ticket)
        return is_mine

    @contextmanager
    def awaited(self, require: Callable[[], object], every_s: float = 0.5) -> Iterator[None]:
        """Have the turn inside; ``require`` is asked now and then before that, and may give up.

        The place in the line is kept meanwhile. It is asked once more when the turn has come.

        Raises:
            Exception: as ``require``; the turn is somebody else's then.
        """
        ticket = self._stand()
        try:
            while not self._wait(ticket, every_s):
                require()
        except BaseException:
            self._leave(ticket)
            raise
        try:
            require()
            yield
        finally:
            self.release()

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

    def _stand(self) -> object:
        """Take the last place in the line."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
        return ticket

    def _wait(self, ticket: object, timeout: float | None) -> bool:
        """Return whether the turn came to this place in time; it is taken then."""
        with self._changed:
            is_mine = self._changed.wait_for(
                lambda: not self._is_held and self._line[0] is ticket, timeout
            )
            if is_mine:
                self._line.popleft()
                self._is_held = True
            return is_mine

    def _leave(self, ticket: object) -> None:
        with self._changed:
            self._line.remove(ticket)
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
