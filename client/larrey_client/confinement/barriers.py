"""Which barriers stand around a process, as it is reported to the hospital's people. Pure values.

A barrier that does not stand has a reason. What a confined process says about itself is foreign:
unknown names are dropped, and a barrier that it does not mention does not stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["BARRIERS", "Isolation"]

# Name -> what it keeps the process from. Names are labels of a metric: they do not change.
BARRIERS: Mapping[str, str] = {
    "namespace": "any network but an empty one of its own",
    "filter": "making sockets",
    "landlock": "opening files it does not need, starting programs",
    "landlock-tcp": "TCP, were a socket to appear",
    "landlock-scope": "signals and abstract sockets to other processes",
    "memory": "taking all memory of the machine",
    "core": "leaving its memory in a file",
    "tracing": "being read by other processes of its account",
}
_MAX_REASON = 120


@dataclass(frozen=True, slots=True)
class Isolation:
    """For each barrier the reason why it does not stand, empty where it does."""

    reasons: Mapping[str, str]

    @property
    def stands(self) -> tuple[str, ...]:
        """Return the names of the barriers that stand."""
        return tuple(name for name, reason in self.reasons.items() if not reason)

    @property
    def missing(self) -> dict[str, str]:
        """Return the barriers that do not stand, with reasons."""
        return {name: reason for name, reason in self.reasons.items() if reason}

    @classmethod
    def parse(cls, value: object) -> Isolation:
        """Return what a process reported, bounded and complete, whatever it sent."""
        told = value if isinstance(value, dict) else {}
        return cls({name: _reason(told.get(name, "not reported")) for name in BARRIERS})


def _reason(value: object) -> str:
    if not isinstance(value, str):
        return "not reported"
    return "".join(c for c in value[:_MAX_REASON] if c.isprintable())
