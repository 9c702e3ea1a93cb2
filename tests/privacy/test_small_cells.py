"""No count from 1 to threshold - 1 is told, nor follows from what is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_privacy.small_cells import (
    Protected,
    protect,
    protect_scalar,
    protect_two_way,
    rounded,
)

Told = tuple[Any, ...]
Counts = dict[Hashable, int]


def told(found: Protected[Any]) -> Told:
    return (
        *found.cells.items(), found.total, *found.rows.items(), *found.columns.items(),
    )  # fmt: skip


def secrets(table: Mapping[Any, int]) -> Counts:
    """Return every count that a table implies: cells, complements, margins, total."""
    total = sum(table.values())
    counts: Counts = dict(table) | {"total": total}
    for key, count in table.items():
        counts["rest", key] = total - count
        if isinstance(key, tuple):
            for axis in (0, 1):
                line = sum(c for k, c in table.items() if k[axis] == key[axis])
                counts["line", axis, key[axis]] = line
                counts["others", axis, key] = line - count
    return counts


def derivable(
    tables: Iterable[Mapping[Any, int]], tell: Callable[..., Any], small: int, most: int
) -> Any:
    """Return a small count that is the same in all tables about which the same is told.

    Whoever sees what is told knows the rule, so that every table that leads to it is considered.
    Only what is told about some table with no count over ``most`` is judged: for larger counts,
    further tables lie outside ``tables``.
    """
    same: dict[Told, dict[Hashable, set[int]]] = defaultdict(lambda: defaultdict(set))
    inner: set[Told] = set()
    for table in tables:
        seen = told(tell(table))
        if max(table.values()) <= most:
            inner.add(seen)
        for key, count in secrets(table).items():
            same[seen][key].add(count)
    for seen in inner:
        for key, values in same[seen].items():
            if len(values) == 1 and 0 < min(values) < small:
                return seen, key, values
    return None


def test_nothing_small_follows_from_a_one_way_table_with_its_total() -> None:
    tables = ({"a": a, "b": b, "c": c} for a, b, c in product(range(27), repeat=3))
    assert derivable(tables, protect, 11, 20) is None


@pytest.mark.parametrize(("rows", "columns", "largest", "most"), [(2, 2, 9, 4), (2, 3, 4, 2)])
def test_nothing_small_follows_from_a_two_way_table_with_its_margins(
    rows: int, columns: int, largest: int, most: int
) -> None:
    keys = list(product(range(rows), range(columns)))
    values = product(range(largest + 1), repeat=len(keys))
    tables = (dict(zip(keys, counts, strict=True)) for counts in values)

    def tell(table: Mapping[tuple[int, int], int]) -> Protected[Any]:
        return protect_two_way(table, threshold=4, base=5)  # 11 and 5, scaled to be searched

    assert derivable(tables, tell, 4, most) is None


def test_the_search_finds_a_count_that_the_total_gives_away() -> None:
    def careless(table: Mapping[str, int]) -> Protected[str]:
        cells = {key: None if 0 < count < 11 else count for key, count in table.items()}
        return Protected(cells, sum(table.values()), {}, {})

    tables = ({"a": a, "b": b} for a, b in product(range(20), repeat=2))
    assert derivable(tables, careless, 11, 10) is not None


@given(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(0, 60)))
def test_every_told_count_is_zero_or_a_multiple_of_five_from_15(
    table: dict[tuple[int, int], int],
) -> None:
    full = {key: table.get(key, 0) for key in product(range(4), repeat=2)}
    found = protect_two_way(full)
    values = [*found.cells.values(), *found.rows.values(), *found.columns.values(), found.total]
    assert all(v is None or v == 0 or (v >= 15 and v % 5 == 0) for v in values)


@given(st.lists(st.integers(0, 80), min_size=2, max_size=6))
def test_no_line_withholds_one_count_or_a_small_rest(counts: list[int]) -> None:
    found = protect(dict(enumerate(counts)))
    hidden = [
        count for count, cell in zip(counts, found.cells.values(), strict=True) if cell is None
    ]
    if found.total is not None:
        assert len(hidden) != 1
        assert not 0 < sum(hidden) < 11


@given(st.lists(st.integers(0, 60), min_size=9, max_size=9))
def test_no_line_of_a_two_way_table_withholds_exactly_one(counts: list[int]) -> None:
    table = dict(zip(product(range(3), repeat=2), counts, strict=True))
    found = protect_two_way(table)
    lines = [[*found.rows.values(), found.total], [*found.columns.values(), found.total]]
    for axis, margins in ((0, found.rows), (1, found.columns)):
        for name, margin in margins.items():
            cells = [cell for key, cell in found.cells.items() if key[axis] == name]
            lines.append([*cells, margin])
    assert all(line.count(None) != 1 for line in lines)


def test_the_cell_that_protects_another_is_the_smallest_that_is_told() -> None:
    found = protect({"a": 3, "b": 40, "c": 50, "d": 0})
    assert found.cells == {"a": None, "b": None, "c": 50, "d": 0}
    assert found.total == 95


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, 0.0), (0.7312, 0.731), (0.9999, 0.999), (1.0, 0.999), (-0.25, -0.25),
        (1.5, None), (2.0, None), (10.0, None), (10.9, None), (-3.0, None),
        (11.0, 15.0), (12.0, 15.0), (13.0, 15.0), (17.0, 15.0), (18.0, 20.0), (-40.0, -40.0),
    ],
)  # fmt: skip
def test_a_scalar_is_a_share_or_a_count(value: float, expected: float | None) -> None:
    assert protect_scalar(value) == expected


@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 50))
def test_no_scalar_that_leaves_is_a_small_count(value: float, threshold: int) -> None:
    told_as = protect_scalar(value, threshold)
    assert told_as is None or abs(told_as) < 1 or abs(told_as) >= threshold


@given(st.integers(11, 10**6))
def test_rounding_moves_a_count_by_less_than_the_base(count: int) -> None:
    assert abs(rounded(count) - count) <= 4
    assert rounded(count) >= 11
