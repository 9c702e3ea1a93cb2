"""Families of metrics with one prefix in a registry of their own, and what to tell people of them.

Both sides export by this: what is exported is what the reference page and the dashboards' tests
read. No series of creation times, which nobody asks for and which double every counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

__all__ = ["Family", "Meters"]


class Family(NamedTuple):
    """One metric as Prometheus and people name it; a counter's name ends in ``_total``."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Meters:
    """A registry whose families share a prefix; ``families`` says what is exported."""

    def __init__(self, prefix: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.families: list[Family] = []
        self._prefix = prefix
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """Return a new gauge; without labels it is exported at once, as 0."""
        self._tell(name, "gauge", meaning, labels)
        return Gauge(self._prefix + name, meaning, labels, registry=self.registry)

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """Return a new counter; its name is given without ``_total``."""
        self._tell(f"{name}_total", "counter", meaning, labels)
        return Counter(self._prefix + name, meaning, labels, registry=self.registry)

    def histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float]
    ) -> Histogram:
        """Return a new histogram with these upper bounds, the infinite one added."""
        self._tell(name, "histogram", meaning, labels)
        full = self._prefix + name
        return Histogram(full, meaning, labels, buckets=buckets, registry=self.registry)

    def expose(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _tell(self, name: str, kind: str, meaning: str, labels: tuple[str, ...]) -> None:
        self.families.append(Family(self._prefix + name, kind, labels, meaning))
