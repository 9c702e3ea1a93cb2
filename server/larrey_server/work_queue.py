"""Work that is done in order, and taken up where it stopped after a failure. For one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Work", "WorkQueue", "failing_once"]

Work: TypeAlias = Callable[[], None]


class WorkQueue:
    """What is due. Work may put other work before all the rest; it must bear being done again."""

    def __init__(self) -> None:
        self._due: deque[Work] = deque()
        self._urgent: deque[Work] = deque()
        self.is_waiting = False  # for an answer, before which nothing is done

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is due."""
        return not (self._due or self._urgent)

    @property
    def has_urgent(self) -> bool:
        """Return whether something is due that waits for nothing."""
        return bool(self._urgent)

    def urgent(self, work: Work) -> None:
        """Put work before all that is due, also where that failed or waits for an answer."""
        self._urgent.append(work)

    def first(self, *work: Work) -> None:
        """Put work before all that is due, in this order."""
        self._due.extendleft(reversed(work))

    def last(self, work: Work) -> None:
        """Put work behind all that is due."""
        self._due.append(work)

    def go_on(self) -> None:
        """Do what is due.

        Raises:
            Exception: of some work; it is due again, before the rest.
        """
        while queue := self._urgent or (() if self.is_waiting else self._due):
            work = queue.popleft()
            try:
                work()
            except BaseException:
                queue.appendleft(work)
                raise


def failing_once(error: Exception) -> Work:
    """Return work that fails the first time, so that those who wait hear of it."""
    errors = [error]

    def fail() -> None:
        if errors:
            raise errors.pop()

    return fail
