"""What every bench shares: figures with targets, one table, one JSON file.

The format of ``bench/results/<name>.json`` is part of Larrey's interface; a figure may also carry
its 95 % interval and, for a share, the count behind it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["RESULTS", "Comparison", "Figure", "finish", "machine"]

RESULTS = Path(__file__).parent / "results"
Comparison = Literal["<=", ">=", ""]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: stable; part of the interface.
        comparison: "<=" or ">=" against ``target``, "" where there is none.
        interval: 95 %, if it was estimated.
        count: e.g. "20 splits" or "3 of 4 sites"; every share has one.
    """

    name: str
    value: float
    unit: str = ""
    comparison: Comparison = ""
    target: float | None = None
    interval: tuple[float, float] | None = None
    count: str = ""

    @property
    def holds(self) -> bool | None:
        """Return whether the target is met, None where there is none; NaN meets nothing."""
        if self.target is None or not self.comparison:
            return None
        at_most, at_least = self.value <= self.target, self.value >= self.target
        return at_most if self.comparison == "<=" else at_least


def finish(
    name: str,
    command: str,
    figures: Sequence[Figure],
    *,
    notes: Sequence[str] = (),
    folder: Path = RESULTS,
) -> int:
    """Print the table, write ``<folder>/<name>.json``, return 0 if every target holds, else 1."""
    print(_table(figures))
    for note in notes:
        print(note)
    document = {
        "command": command,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "figures": [_record(figure) for figure in figures],
        "notes": list(notes),
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(f"written: {folder.name}/{path.name}", file=sys.stderr)
    return 1 if any(figure.holds is False for figure in figures) else 0


def machine() -> dict[str, Any]:  # Any: JSON values
    """Return what kind of machine this is, without its name or addresses."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _record(figure: Figure) -> dict[str, Any]:  # Any: JSON values
    record = asdict(figure) | {"holds": figure.holds}
    extras = {key: record.pop(key) for key in ("interval", "count")}
    return record | {key: value for key, value in extras.items() if value}


def _table(figures: Sequence[Figure]) -> str:
    titles = ("figure", "value", "95 % interval", "target", "holds", "count")
    rows = [titles, *(_row(figure) for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, str, str, str, str, str]:
    interval = figure.interval and f"[{figure.interval[0]:.4g}, {figure.interval[1]:.4g}]"
    target = "" if figure.target is None else f"{figure.comparison} {figure.target:g}"
    holds = {None: "", True: "yes", False: "NO"}[figure.holds]
    value = f"{figure.value:.4g} {figure.unit}".rstrip()
    return (figure.name, value, interval or "", target, holds, figure.count)
