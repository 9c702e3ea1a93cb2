"""Passes what happens in studies on to whoever watches; a slow watcher loses its oldest news."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Feed"]

_BACKLOG = 1000  # events a watcher may lag behind

Facts = dict[str, Any]  # Any: JSON


class Feed:
    """Events by study digest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: dict[str, set[queue.SimpleQueue[Facts | None]]] = {}

    def publish(self, study: str, event: Facts | None) -> None:
        """Hand an event to the watchers of a study; None ends their watch."""
        with self._lock:
            watchers = list(self._watchers.get(study, ()))
        for watcher in watchers:
            while watcher.qsize() >= _BACKLOG:
                watcher.get()
            watcher.put(event)

    @contextmanager
    def watch(self, study: str) -> Iterator[queue.SimpleQueue[Facts | None]]:
        """Give a queue that receives the study's events while the context lasts."""
        watcher: queue.SimpleQueue[Facts | None] = queue.SimpleQueue()
        with self._lock:
            self._watchers.setdefault(study, set()).add(watcher)
        try:
            yield watcher
        finally:
            with self._lock:
                self._watchers[study].discard(watcher)

    def close(self) -> None:
        """End all watches."""
        for study in list(self._watchers):
            self.publish(study, None)
