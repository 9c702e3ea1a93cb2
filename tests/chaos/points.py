"""The list of kill points, and the labels that the product's source has."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROCESSES = ("coordinator", "aggregator", "agent", "trainer")
_ROOT = Path(__file__).parents[2]
_PACKAGES = ("protocol", "privacy", "strategies", "client", "server")
_CALL = re.compile(r"\breached\(([^)]*)\)")
_HOME = _ROOT / "protocol" / "larrey_protocol" / "waypoints.py"
_MOST_TIMES = 3


@dataclass(frozen=True)
class Point:
    """One entry of kill_points.toml; its comment says what the fields mean."""

    process: str
    name: str
    at: Literal["launch", "round", "start", "end"] = "round"
    spends: bool | Literal["perhaps"] = False
    private: bool = False

    @property
    def label(self) -> str:
        return f"{self.process}.{self.name}"

    @property
    def is_at_site(self) -> bool:
        return self.process in {"agent", "trainer"}

    def times(self, chance: random.Random) -> int:
        """Return the how-manieth time it is to be hit: sites take turns at the coordinator."""
        return 1 if self.is_at_site or self.at != "round" else chance.randint(1, _MOST_TIMES)


def points() -> tuple[Point, ...]:
    """Return all points, in the order of the file."""
    listed = tomllib.loads((Path(__file__).parent / "kill_points.toml").read_text())
    return tuple(
        Point(process, name, **facts)
        for process, names in listed.items()
        for name, facts in names.items()
    )


def labels_in_source() -> list[str]:
    """Return the label of every call in the product's source; another argument as it is written."""
    files = [path for package in _PACKAGES for path in sorted((_ROOT / package).rglob("*.py"))]
    calls = [call for path in files if path != _HOME for call in _CALL.findall(path.read_text())]
    return [call.strip('"') for call in calls]


def sample(listed: Sequence[Point], most: int, chance: random.Random) -> tuple[Point, ...]:
    """Return at most so many points that a running round comes to, of each process one at least."""
    usual = [one for one in listed if one.at == "round" and not one.private]
    first = [chance.choice([p for p in usual if p.process == process]) for process in PROCESSES]
    rest = [point for point in usual if point not in first]
    return (*first, *chance.sample(rest, most - len(first)))
