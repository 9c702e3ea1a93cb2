"""A table whose columns are parsed at most once: what every check and step looks at. Sensitive.

Parsing never fails: what cannot be read is marked as wrong, and a check says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from larrey_client.data.outcomes import Labels, outcomes
from larrey_client.data.steps import category_features, number_features
from larrey_protocol.contract import Column, Contract

__all__ = ["Cells", "Codes", "Numbers", "Units", "flags", "trimmed"]

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
Flags = NDArray[np.bool_]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A number column: values (0 where missing or wrong), and what is missing or no number."""

    values: NDArray[np.float64]
    is_missing: Flags
    is_wrong: Flags


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """A category column: index of the declared value, -1 where missing or not declared."""

    codes: NDArray[np.int64]
    is_missing: Flags


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Whose row it is: index into ``ids``, -1 where nobody is named."""

    codes: NDArray[np.int64]
    ids: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The contract's columns of a table, each parsed when first asked for."""

    contract: Contract
    table: pa.Table
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)  # Any: by kind

    @property
    def rows(self) -> int:
        """Return the number of rows; private."""
        return int(self.table.num_rows)

    def has(self, *names: str) -> bool:
        """Return whether the table has all these columns."""
        return set(names) <= set(self.table.column_names)

    def texts(self, name: str) -> pa.ChunkedArray:
        """Return a column as text, null where it is missing."""
        return self._keep("texts", name, lambda: trimmed(self.table[name]))

    def numbers(self, column: Column) -> Numbers:
        """Return a number column."""
        return self._keep(
            "numbers", column.name, lambda: self._numbers(column.name, column.missing_values)
        )

    def codes(self, column: Column) -> Codes:
        """Return a category column."""
        return self._keep("codes", column.name, lambda: self._codes(column))

    def features(self, column: Column) -> NDArray[np.float64]:
        """Return what the column's steps make of it, "(rows, features)"."""
        return self._keep("features", column.name, lambda: self._features(column))

    def is_missing(self, column: Column) -> Flags:
        """Return which cells of an input are missing."""
        is_number = column.kind == "number"
        return (self.numbers(column) if is_number else self.codes(column)).is_missing

    @property
    def units(self) -> Units:
        """Return whose rows they are."""
        return self._keep("units", "", self._units)

    @property
    def labels(self) -> Labels:
        """Return the outcomes."""
        return self._keep("labels", "", self._labels)

    def _keep(self, kind: str, name: str, make: Callable[[], _T]) -> _T:
        if (kind, name) not in self._kept:
            self._kept[kind, name] = make()
        kept: _T = self._kept[kind, name]
        return kept

    def _numbers(self, name: str, missing_values: Sequence[str] = ()) -> Numbers:
        cells = self.table[name]
        kind = cells.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            values = pc.fill_null(pc.cast(cells, pa.float64(), safe=False), np.nan).to_numpy()
            is_missing, is_wrong = np.isnan(values), np.zeros(len(values), np.bool_)
        else:
            values, is_missing, is_wrong = _parsed(self.texts(name), missing_values)
        for code in missing_values:  # "0" also means "0.0"
            number = _as_number(code)
            is_missing = is_missing if number is None else is_missing | (values == number)
        return Numbers(np.where(is_missing | is_wrong, 0.0, values), is_missing, is_wrong)

    def _codes(self, column: Column) -> Codes:
        texts = self.texts(column.name)
        is_missing = flags(pc.is_null(texts)) | _is_in(texts, column.missing_values)
        found = pc.index_in(texts, value_set=pa.array(column.values, pa.string()))
        return Codes(pc.fill_null(found, -1).to_numpy().astype(np.int64), is_missing)

    def _features(self, column: Column) -> NDArray[np.float64]:
        if column.kind == "category":
            return category_features(self.codes(column).codes, len(column.values))
        numbers = self.numbers(column)
        return number_features(column, numbers.values, numbers.is_missing)

    def _units(self) -> Units:
        encoded = self.texts(self.contract.unit.column).combine_chunks().dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        return Units(codes.astype(np.int64), encoded.dictionary.to_pylist())

    def _labels(self) -> Labels:
        def is_in(name: str, texts: Sequence[str]) -> Flags:
            return _is_in(self.texts(name), texts)

        return outcomes(self.contract, is_in, self._numbers)


def trimmed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells as text without surrounding white space; empty text is missing."""
    texts = pc.utf8_trim_whitespace(pc.cast(cells, pa.string()))
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def flags(cells: pa.ChunkedArray) -> Flags:
    """Return booleans without nulls as numpy's."""
    values: Flags = cells.to_numpy().astype(np.bool_)
    return values


def _parsed(
    texts: pa.ChunkedArray, missing_values: Sequence[str]
) -> tuple[NDArray[np.float64], Flags, Flags]:
    is_missing = flags(pc.is_null(texts)) | _is_in(texts, missing_values)
    is_number = flags(pc.fill_null(pc.match_substring_regex(texts, _NUMBER), False))
    kept = pc.if_else(pa.array(is_number), texts, "nan")
    values = pc.cast(kept, pa.float64()).to_numpy()
    return values, is_missing, ~is_number & ~is_missing


def _is_in(texts: pa.ChunkedArray, values: Sequence[str]) -> Flags:
    return flags(pc.is_in(texts, value_set=pa.array(values, pa.string())))


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
