"""What is asked of the extract process: one frame, with the connection string's file beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """One query and what it may cost; ``hidden`` are files that must be closed to the process."""

    query: str
    timeout_s: float
    max_rows: int
    max_bytes: int
    memory_bytes: int
    hidden: tuple[str, ...] = ()

    def frame(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, frame: dict[str, Any]) -> Wish:
        """Return the wish in a frame from the agent."""
        return cls(**frame | {"hidden": tuple(frame["hidden"])})
