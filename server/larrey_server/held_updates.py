"""Which updates of one study stay in the spool, whatever other sites and studies do with the bytes.

Those that counted in some attempt of the open round, and those of the last applied round, of which
its model can be made again (`larrey_server.rebuilding`): never more than two rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from larrey_server.spool import Spool

__all__ = ["HeldUpdates"]


class HeldUpdates:
    """The updates, by digest; for one thread."""

    def __init__(self, spool: Spool, applied: Iterable[str] = ()) -> None:
        """Hold the updates of the last applied round."""
        self._spool = spool
        self._held: set[str] = set()
        self._counted: set[str] = set()  # in some attempt of the open round
        self._applied = set(applied)
        for update in self._applied:
            self.hold(update)

    def hold(self, update: str) -> None:
        """Let nobody else drop an update."""
        if update not in self._held:
            self._held.add(update)
            self._spool.keep(update)

    def count(self, update: str) -> None:
        """Note that an update counts in the open round."""
        self._counted.add(update)

    def drop(self, update: str, besides: Collection[str] = ()) -> None:
        """Forget an update unless it is needed here, or is one of ``besides``."""
        needed = self._counted | self._applied | set(besides)
        if update in self._held - needed:
            self._held.remove(update)
            self._spool.release(update)
        elif update and update not in needed:
            self._spool.drop(update)

    def close_round(self, applied: Iterable[str], besides: Collection[str] = ()) -> None:
        """Forget all but the updates of the round that was just applied, and ``besides``."""
        self._counted.clear()
        self._applied = set(applied)
        for update in tuple(self._held):
            self.drop(update, besides)
