"""The handle of the aggregation worker: starts it, feeds it, brings it back when it dies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from larrey_protocol.tensors import TensorLayout

__all__ = ["Aggregator", "Averaging", "Outcome"]


@dataclass(frozen=True, slots=True)
class Averaging:
    """One round's aggregation: files in, files out.

    ``updates`` are (file, weight) in roster order; weights sum to one.
    """

    layout: TensorLayout
    updates: tuple[tuple[Path, float], ...]
    model: Path
    new_model: Path
    strategy: str
    parameters: Mapping[str, float]
    state: Path | None = None  # absent before the first round
    new_state: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the worker answered; ``code`` is empty when all is well."""

    code: str = ""
    digest: str = ""  # of the new model file
    norm: float = 0.0  # of a checked update


class Aggregator:
    """One worker process; all methods are thread-safe, and callbacks come from its own thread."""

    @classmethod
    def start(cls) -> Aggregator:
        """Return a running worker."""
        raise NotImplementedError

    def check(
        self, path: Path, layout: TensorLayout, norm_bound: float, done: Callable[[Outcome], None]
    ) -> None:
        """Check one spooled update; never blocks."""
        raise NotImplementedError

    def aggregate(self, averaging: Averaging, done: Callable[[Outcome], None]) -> None:
        """Aggregate one round; never blocks."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the worker; outstanding requests are answered ``aggregator-stopped``."""
        raise NotImplementedError
