"""An interrupt that is not lost.

Python turns SIGINT into an exception wherever the main thread is; inside a callback of a garbage
collector, an import lock or a C extension that exception is printed or dropped, and the program
goes on. Who ends a demonstration by Ctrl-C must not have to press it again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["Interrupts", "heard_interrupts"]


class Interrupts:
    """Remembers that SIGINT came."""

    def __init__(self) -> None:
        self._came = False

    def take(self, _signal: int, _frame: FrameType | None) -> None:
        """Note it and raise it here, as Python does by itself."""
        self._came = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt where one came and was lost."""
        if self._came:
            raise KeyboardInterrupt


NONE: Final = Interrupts()  # where nobody listens, none comes


@contextmanager
def heard_interrupts() -> Iterator[Interrupts]:
    """Yield what remembers each SIGINT while the context lasts; in the main thread only."""
    interrupts = Interrupts()
    before = signal.signal(signal.SIGINT, interrupts.take)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
