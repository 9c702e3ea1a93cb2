"""The contract compiled to checks: every rule that a table must meet before training.

Each rule is a pure function of the contract and the table and returns all its violations; a rule
looks only at columns that are there, so that everything wrong is named at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from larrey_client.data.cells import Cells
from larrey_client.data.lint import lint_names, lint_values
from larrey_client.data.violation import Violation, band
from larrey_protocol.contract import Column, Contract
from larrey_protocol.labels import NumberLabel, SurvivalLabel

__all__ = ["RULES", "Rule", "check", "check_names", "present"]

Rule = Callable[[Contract, Cells], Iterator[Violation]]
_Values = np.ndarray[tuple[int], np.dtype[np.float64]]
_Declared = Column | NumberLabel | SurvivalLabel


def check_names(contract: Contract, names: Sequence[str]) -> list[Violation]:
    """Return what is wrong with the columns of a source: missing, or there twice."""
    found: list[Violation] = []
    for name in contract.column_names():
        if names.count(name) > 1:
            found.append(Violation("column-missing", name, "it is there twice; keep one"))
        elif name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f". Is it '{near[0]}'? Rename it" if near else ""
            found.append(Violation("column-missing", name, f"it is not in the file{hint}"))
    return found


def present(contract: Contract, names: Sequence[str]) -> list[str]:
    """Return the contract's columns that a source has exactly once."""
    return [name for name in contract.column_names() if names.count(name) == 1]


def check(contract: Contract, cells: Cells) -> list[Violation]:
    """Return every violation of every rule; an empty table breaks one rule only."""
    if cells.rows == 0:
        return [Violation("data-empty", "", "the table has no rows")]
    return [violation for rule in RULES.values() for violation in rule(contract, cells)]


def _identifier_column(contract: Contract, _: Cells) -> Iterator[Violation]:
    yield from lint_names(contract)


def _identifier_value(contract: Contract, cells: Cells) -> Iterator[Violation]:
    yield from lint_values(contract, cells)


def _unit_missing(contract: Contract, cells: Cells) -> Iterator[Violation]:
    unit = contract.unit
    if cells.has(unit.column):
        nameless = int((cells.units.codes < 0).sum())
        if nameless:
            what = f"{band(nameless)} rows name no {unit.name}"
            yield Violation("unit-missing", unit.column, what)


def _rows_per_unit(contract: Contract, cells: Cells) -> Iterator[Violation]:
    unit = contract.unit
    if cells.has(unit.column):
        crowded = int((_rows_of_units(cells) > unit.max_rows).sum())
        if crowded:
            what = f"{band(crowded)} {unit.name} units have more than {unit.max_rows} rows"
            yield Violation("rows-per-unit", unit.column, what)


def _too_few_units(contract: Contract, cells: Cells) -> Iterator[Violation]:
    unit = contract.unit
    if cells.has(unit.column):
        count = len(cells.units.ids)
        if count < unit.min_count:
            what = f"it has {band(count)} {unit.name} units, the contract needs {unit.min_count}"
            yield Violation("too-few-units", unit.column, what)


def _duplicate_rows(contract: Contract, cells: Cells) -> Iterator[Violation]:
    names = [name for name in contract.column_names() if not _is_path(contract, name)]
    if contract.unit.duplicates == "allow" or not cells.has(*names):
        return
    texts = pa.table({name: cells.texts(name) for name in names})
    distinct = texts.group_by(names, use_threads=False).aggregate([]).num_rows
    doubles = cells.rows - int(distinct)
    if doubles:
        what = f"{band(doubles)} rows repeat another row of the same {contract.unit.name}"
        yield Violation("duplicate-rows", contract.unit.column, what)


def _label_unknown(contract: Contract, cells: Cells) -> Iterator[Violation]:
    if cells.has(*contract.label.columns):
        for column, rows, words in cells.labels.unread:
            unknown = int(rows.sum())
            if unknown:
                yield Violation("label-unknown", column, f"{band(unknown)} rows have {words}")


def _prevalence(contract: Contract, cells: Cells) -> Iterator[Violation]:
    if not cells.has(*contract.label.columns):
        return
    known = sum(int(group.rows.sum()) for group in cells.labels.groups)
    for group in cells.labels.groups if known else ():
        low, high = group.share or (0.0, 1.0)
        share = int(group.rows.sum()) / known
        if not low <= share <= high:
            side = "below" if share < low else "above"
            what = f"the share of rows with {group.words} is {side} [{low:g}, {high:g}]"
            yield Violation("prevalence-out-of-range", contract.label.columns[-1], what)


def _too_few_outcomes(contract: Contract, cells: Cells) -> Iterator[Violation]:
    label, unit = contract.label, contract.unit
    if label.kind == "number" or not label.min_count:
        return
    if cells.has(*label.columns, unit.column):
        for group in cells.labels.groups:
            owners = cells.units.codes[group.rows]
            count = len(np.unique(owners[owners >= 0]))
            if count < label.min_count:
                what = (
                    f"{band(count)} {unit.name} units have {group.words},"
                    f" the contract needs {label.min_count}"
                )
                yield Violation("too-few-outcomes", label.columns[-1], what)


def _not_a_number(contract: Contract, cells: Cells) -> Iterator[Violation]:
    for column in _columns(contract, cells, "number"):
        wrong = int(cells.numbers(column).is_wrong.sum())
        if wrong:
            what = f"{band(wrong)} rows are not decimal numbers"
            yield Violation("not-a-number", column.name, what)


def _out_of_range(contract: Contract, cells: Cells) -> Iterator[Violation]:
    for name, values, declared in _declared(contract, cells):
        low, high = declared.range or (-np.inf, np.inf)
        outside = int((~((values >= low) & (values <= high) & np.isfinite(values))).sum())
        if outside:
            what = f"{band(outside)} rows lie outside [{low:g}, {high:g}]"
            yield Violation("value-out-of-range", name, what)


def _median(contract: Contract, cells: Cells) -> Iterator[Violation]:
    for name, values, declared in _declared(contract, cells):
        if declared.median_range is None or not len(values):
            continue
        low, high = declared.median_range
        median = float(np.median(values))
        if not low <= median <= high:
            side = "below" if median < low else "above"
            unit = f"; is it in another unit than {declared.unit}?" if declared.unit else ""
            what = f"its median lies {side} [{low:g}, {high:g}]{unit}"
            yield Violation("median-out-of-range", name, what)


def _category_unknown(contract: Contract, cells: Cells) -> Iterator[Violation]:
    for column in _columns(contract, cells, "category"):
        found = cells.codes(column)
        unknown = int(((found.codes < 0) & ~found.is_missing).sum())
        if unknown:
            what = f"{band(unknown)} rows have a value that the contract does not list"
            yield Violation("category-unknown", column.name, what)


def _missing(contract: Contract, cells: Cells) -> Iterator[Violation]:
    for column in (*_columns(contract, cells, "number"), *_columns(contract, cells, "category")):
        if float(cells.is_missing(column).mean()) > column.missing_max:
            what = f"more of its cells are missing than the {column.missing_max:.1%} allowed"
            yield Violation("too-many-missing", column.name, what)


def _not_finite(contract: Contract, cells: Cells) -> Iterator[Violation]:
    for column in _columns(contract, cells, "number"):
        broken = ~np.isfinite(cells.features(column)).all(axis=1)
        is_sound = cells.numbers(column).is_missing | _is_inside(cells, column)
        count = int((broken & is_sound & ~cells.numbers(column).is_wrong).sum())
        if count:
            what = f"its steps have no result for {band(count)} rows"
            yield Violation("feature-not-finite", column.name, what)


RULES: Mapping[str, Rule] = {
    "identifier-column": _identifier_column,
    "identifier-value": _identifier_value,
    "unit-missing": _unit_missing,
    "rows-per-unit": _rows_per_unit,
    "too-few-units": _too_few_units,
    "duplicate-rows": _duplicate_rows,
    "label-unknown": _label_unknown,
    "prevalence-out-of-range": _prevalence,
    "too-few-outcomes": _too_few_outcomes,
    "not-a-number": _not_a_number,
    "value-out-of-range": _out_of_range,
    "median-out-of-range": _median,
    "category-unknown": _category_unknown,
    "too-many-missing": _missing,
    "feature-not-finite": _not_finite,
}


def _columns(contract: Contract, cells: Cells, kind: str) -> list[Column]:
    return [c for c in contract.columns if c.kind == kind and cells.has(c.name)]


def _declared(contract: Contract, cells: Cells) -> Iterator[tuple[str, _Values, _Declared]]:
    """Give each column of numbers: inputs, then the outcome, with the values that it has."""
    for column in _columns(contract, cells, "number"):
        yield column.name, cells.numbers(column).values[_is_number(cells, column)], column
    label = contract.label
    if isinstance(label, NumberLabel | SurvivalLabel) and cells.has(*label.columns):
        numbers = cells.labels.numbers
        if numbers is not None:
            yield label.columns[0], numbers.values[~numbers.is_missing & ~numbers.is_wrong], label


def _is_path(contract: Contract, name: str) -> bool:
    """Return whether the column says where a file lies; equal files may lie in two places."""
    return contract.image is not None and name == contract.image.path


def _rows_of_units(cells: Cells) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    codes = cells.units.codes
    return np.bincount(codes[codes >= 0], minlength=1)


def _is_number(cells: Cells, column: Column) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    numbers = cells.numbers(column)
    return ~numbers.is_missing & ~numbers.is_wrong


def _is_inside(cells: Cells, column: Column) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    low, high = column.range or (-np.inf, np.inf)
    values = cells.numbers(column).values
    return (values >= low) & (values <= high)
