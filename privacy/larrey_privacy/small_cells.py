"""Small-cell rule for numbers that are no differentially private output. Pure, integers in and out.

A count from 1 to threshold - 1 is not told; any other is rounded to a multiple of the base; a cell
from which a small one would follow by subtraction is withheld as well, in every row and column with
its margin. Zero is told: it is no patient. Counts that are DP outputs are released as drawn and do
not come here.

A floor for what differential privacy does not cover, never a substitute for it: the rule says
nothing about many tables over the same patients.

Source: CMS cell size suppression policy (resdac.org/node/1506): no cell of 1 to 10, nor one that
can be derived from percentages or complements. Rounding and the choice of the smallest
complementary cell are ours.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = [
    "BASE",
    "THRESHOLD",
    "Protected",
    "is_small",
    "protect",
    "protect_scalar",
    "protect_two_way",
    "rounded",
]

THRESHOLD = 11
BASE = 5
_STEPS = 1000  # a share is told to three decimals
_SLACK = 1e-3  # of a step: float32 writes 0.7 as 0.69999999

_Key = TypeVar("_Key", bound=Hashable)
_Row = Hashable
_Line = Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class Protected(Generic[_Key]):
    """What may be told: None is withheld, any other number is rounded.

    Attributes:
        cells: by key.
        total: of all cells.
        rows, columns: margins of a two-way table; empty for a one-way table.
    """

    cells: Mapping[_Key, int | None]
    total: int | None
    rows: Mapping[Hashable, int | None]
    columns: Mapping[Hashable, int | None]


def is_small(count: float, threshold: int = THRESHOLD) -> bool:
    """Return whether a count is of too few patients to be told."""
    return 0 < abs(count) < threshold


def rounded(count: float, threshold: int = THRESHOLD, base: int = BASE) -> int:
    """Return the nearest multiple of ``base`` that is not small itself; 0 for 0.

    11 and 12 become 15, so that no number from 1 to 10 is ever told.
    """
    size = math.floor(abs(count) / base + 0.5) * base
    least = math.ceil(threshold / base) * base
    return int(math.copysign(max(size, least), count)) if count else 0


def protect_scalar(value: float, threshold: int = THRESHOLD, base: int = BASE) -> float | None:
    """Return how one number of a standard app may be told, None if not at all.

    Below 1 it is taken for a share and rounded down to three decimals, exactly 1 for a whole share
    and told as 0.999. Above, it is taken for a count: small ones are not told, others are rounded.
    Negative numbers likewise, by their size.
    """
    size = abs(value)
    if size < 1:
        size = math.floor(size * _STEPS + _SLACK) / _STEPS
    elif size == 1:
        size = (_STEPS - 1) / _STEPS
    elif is_small(size, threshold):
        return None
    else:
        size = rounded(size, threshold, base)
    return math.copysign(size, value)


def protect(
    table: Mapping[_Key, int], *, threshold: int = THRESHOLD, base: int = BASE
) -> Protected[_Key]:
    """Return what may be told of a one-way table and its total.

    Args:
        table: patients by category, each patient in one of them.
        threshold: smallest count that may be told.
        base: told counts are multiples of it.
    """
    counts: dict[Hashable, int] = {("cell", key): count for key, count in table.items()}
    line = [*counts, "total"]
    counts["total"] = sum(table.values())
    withheld = _withheld(counts, [line], threshold)
    told = _told(counts, withheld, threshold, base)
    return Protected({key: told["cell", key] for key in table}, told["total"], {}, {})


def protect_two_way(
    table: Mapping[tuple[_Row, _Row], int], *, threshold: int = THRESHOLD, base: int = BASE
) -> Protected[tuple[_Row, _Row]]:
    """Return what may be told of a two-way table, its margins and its total.

    Args:
        table: patients by (row, column), complete, each patient in one cell.
        threshold: smallest count that may be told.
        base: told counts are multiples of it.
    """
    rows, columns = (list(dict.fromkeys(key[axis] for key in table)) for axis in (0, 1))
    counts: dict[Hashable, int] = {("cell", key): count for key, count in table.items()}
    lines: list[_Line] = []
    for axis, names in ((0, rows), (1, columns)):
        for name in names:
            cells = [("cell", key) for key in table if key[axis] == name]
            counts[axis, name] = sum(counts[cell] for cell in cells)
            lines.append([*cells, (axis, name)])
        lines.append([*((axis, name) for name in names), "total"])
    counts["total"] = sum(table.values())
    told = _told(counts, _withheld(counts, lines, threshold), threshold, base)
    return Protected(
        {key: told["cell", key] for key in table},
        told["total"],
        {name: told[0, name] for name in rows},
        {name: told[1, name] for name in columns},
    )


def _told(
    counts: Mapping[Hashable, int], withheld: set[Hashable], threshold: int, base: int
) -> dict[Hashable, int | None]:
    return {
        key: None if key in withheld else rounded(count, threshold, base)
        for key, count in counts.items()
    }


def _withheld(
    counts: Mapping[Hashable, int], lines: Sequence[_Line], threshold: int
) -> set[Hashable]:
    """Return the small counts and those that protect them; the last of a line is its sum.

    A line gives a count away if it is the only one withheld, or if what is withheld is small
    together, so that it is the complement of what is told. Where the sum of a line is small, its
    zeros are withheld, too: with them told, ones would be known for ones.
    """
    if is_small(counts["total"], threshold):
        return set(counts)
    withheld = {key for key, count in counts.items() if is_small(count, threshold)}
    withheld |= {key for line in lines if is_small(counts[line[-1]], threshold) for key in line}
    is_settled = False
    while not is_settled:
        is_settled = True
        for line in lines:
            hidden = [key for key in line if key in withheld]
            if not hidden or not _is_given_away(counts, line, hidden, threshold):
                continue
            others = [key for key in line if key not in withheld]
            if others:
                withheld.add(min(others, key=lambda key: (counts[key] == 0, counts[key])))
                is_settled = False
    return withheld


def _is_given_away(
    counts: Mapping[Hashable, int], line: _Line, hidden: Sequence[Hashable], threshold: int
) -> bool:
    if len(hidden) == 1:
        return True
    together = sum(counts[key] for key in hidden)
    return line[-1] not in hidden and is_small(together, threshold)
