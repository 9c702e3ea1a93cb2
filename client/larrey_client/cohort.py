"""From a hospital's table to numbers: read, check against the contract, apply its steps.

`read_table` does the input and output, `prepare` is pure. Only the contract's columns are kept;
what else the file holds is never stored. Messages name the rule and the column and give counts of
rows, never a value; they stay at the site, and only the code may leave.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from larrey_client.steps import category_features, number_features, unit_rows
from larrey_privacy.cohort import Cohort
from larrey_protocol.contract import Column, Contract
from larrey_protocol.errors import DataError

__all__ = ["cached_cohort", "fingerprint", "load_cohort", "prepare", "read_table"]

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
# Names of columns that identify a person; such a column is never a feature.
_IDENTIFIERS = frozenset(
    {"nir", "ins", "ipp", "name", "first_name", "last_name", "address", "birth_date", "birthdate"}
    | {"date_of_birth", "email", "phone", "ssn", "patient_name", "insurance_number"}
)
_FOLLOW_CONTRACT = "Correct the extract so that it follows the contract."


def load_cohort(path: Path, contract: Contract) -> Cohort:
    """Return the cohort in a CSV or Parquet file.

    Raises:
        DataError: as `read_table` and `prepare`.
    """
    return prepare(read_table(path, contract), contract)


def fingerprint(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written; all zero where there is none."""
    try:
        facts = path.stat()
    except OSError:
        return (0, 0, 0, 0, 0)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def cached_cohort(path: Path, contract: str) -> Cohort:
    """Return the cohort, read again only when the file or the contract's JSON has changed.

    Raises:
        DataError: as `load_cohort`.
    """
    return _cohort_as_of(path, fingerprint(path), contract)


@lru_cache(maxsize=1)
def _cohort_as_of(path: Path, _state: tuple[int, ...], contract: str) -> Cohort:
    return load_cohort(path, Contract.model_validate_json(contract))


def read_table(path: Path, contract: Contract) -> pa.Table:
    """Return the contract's columns of the file; CSV columns as text.

    Raises:
        DataError: ``data-missing``, ``data-empty``, ``data-format``, ``data-unreadable`` or
            ``column-missing``.
    """
    if not path.is_file():
        raise DataError("data-missing", f"expected a file at {path}", "Check the path in site.toml")
    if path.stat().st_size == 0:
        raise DataError("data-empty", f"{path} is empty", "Export the cohort again.")
    reader = {".csv": _read_csv, ".parquet": _read_parquet}.get(path.suffix.lower())
    if reader is None:
        raise DataError("data-format", f"{path} is neither .csv nor .parquet", "Convert it.")
    try:
        return reader(path, contract)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        # The library's text may quote cells, so it is neither repeated nor chained.
        kind = type(error).__name__
        raise DataError(
            "data-unreadable", f"{path} cannot be read ({kind})", "Export it again."
        ) from None


def prepare(table: pa.Table, contract: Contract) -> Cohort:
    """Return the cohort that a table becomes under the contract: checked, preprocessed, indexed.

    Raises:
        DataError: ``identifier-column``, ``column-missing``, ``data-empty``, ``unit-missing``,
            ``rows-per-unit``, ``too-few-units``, ``label-unknown``, ``not-a-number``,
            ``value-out-of-range``, ``category-unknown``, ``too-many-missing`` or
            ``feature-not-finite``.
    """
    _refuse_identifiers(contract)
    _require_columns(table.column_names, contract)
    if table.num_rows == 0:
        raise DataError("data-empty", "the table has no rows", "Export the cohort again.")
    patient = _units(table, contract)
    label = _labels(table, contract)
    blocks = [_features(column, table[column.name]) for column in contract.columns]
    features = np.column_stack(blocks)
    if contract.rows.unit_norm:
        features = unit_rows(features)
    return Cohort(np.ascontiguousarray(features, dtype=np.float32), label, patient)


def _needed(contract: Contract) -> list[str]:
    names = [column.name for column in contract.columns]
    return [*names, contract.unit.column, contract.label.column]


def _read_csv(path: Path, contract: Contract) -> pa.Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    _require_columns(header, contract)
    needed = _needed(contract)
    options = pacsv.ConvertOptions(
        include_columns=needed,
        column_types=dict.fromkeys(needed, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
    )
    return pacsv.read_csv(
        path,
        pacsv.ReadOptions(use_threads=False),
        pacsv.ParseOptions(newlines_in_values=True),
        options,
    )


def _read_parquet(path: Path, contract: Contract) -> pa.Table:
    with pq.ParquetFile(path) as file:
        _require_columns(file.schema_arrow.names, contract)
        return file.read(columns=_needed(contract), use_threads=False)


def _refuse_identifiers(contract: Contract) -> None:
    names = [*(column.name for column in contract.columns), contract.label.column]
    found = [n for n in names if n.lower().replace("-", "_") in _IDENTIFIERS]
    if found:
        raise DataError(
            "identifier-column",
            f"the contract asks for '{found[0]}', which by its name identifies persons",
            "Refuse the study, or ask for a contract without it.",
        )


def _require_columns(present: Sequence[str], contract: Contract) -> None:
    for name in _needed(contract):
        if present.count(name) == 1:
            continue
        if name in present:
            raise DataError("column-missing", f"the column '{name}' is there twice", "Keep one.")
        near = difflib.get_close_matches(name, present, n=1, cutoff=0.4)
        hint = f"Is it '{near[0]}'? Rename it." if near else _FOLLOW_CONTRACT
        raise DataError("column-missing", f"the column '{name}' is not in the file", hint)


def _units(table: pa.Table, contract: Contract) -> NDArray[np.int64]:
    """Return each row's patient as a number from 0, without gaps."""
    unit = contract.unit
    texts = _texts(table[unit.column])
    empty = _count(pc.or_kleene(pc.is_null(texts), pc.equal(texts, "")))
    if empty:
        raise _violation("unit-missing", unit.column, f"{empty} rows name no {unit.name}")
    encoded = texts.combine_chunks().dictionary_encode()
    patient: NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    rows = np.bincount(patient)
    crowded = int((rows > unit.max_rows).sum())
    if crowded:
        what = f"{crowded} {unit.name} units have more than {unit.max_rows} rows"
        raise _violation("rows-per-unit", unit.column, what)
    if len(rows) < unit.min_count:
        what = f"it has {len(rows)} {unit.name} units, the contract needs {unit.min_count}"
        raise _violation("too-few-units", unit.column, what)
    return patient


def _labels(table: pa.Table, contract: Contract) -> NDArray[np.float32]:
    label = contract.label
    texts = _texts(table[label.column])
    is_positive = _is_in(texts, label.positive)
    unknown = int((~(is_positive | _is_in(texts, label.negative))).sum())
    if unknown:
        what = f"{unknown} rows have a value that is neither positive nor negative"
        raise _violation("label-unknown", label.column, what)
    return is_positive.astype(np.float32)


def _features(column: Column, cells: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return the features of one column, checked before and after its steps."""
    if column.kind == "category":
        return _category(column, _texts(cells))
    values, is_missing = _numbers(column, cells)
    _check_missing(column, is_missing)
    low, high = column.range or (-np.inf, np.inf)
    outside = int((~is_missing & ~((values >= low) & (values <= high))).sum())
    if outside:
        what = f"{outside} rows lie outside [{low:g}, {high:g}]"
        raise _violation("value-out-of-range", column.name, what)
    features = number_features(column, values, is_missing)
    broken = int((~np.isfinite(features)).any(axis=1).sum())
    if broken:
        what = f"its steps have no result for {broken} rows"
        raise _violation("feature-not-finite", column.name, what)
    return features


def _category(column: Column, texts: pa.ChunkedArray) -> NDArray[np.float64]:
    is_missing = _flags(pc.is_null(texts)) | _is_in(texts, column.missing_values)
    _check_missing(column, is_missing)
    found = pc.index_in(texts, value_set=pa.array(column.values, pa.string()))
    codes = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    unknown = int(((codes < 0) & ~is_missing).sum())
    if unknown:
        what = f"{unknown} rows have a value that the contract does not list"
        raise _violation("category-unknown", column.name, what)
    return category_features(codes, len(column.values))


def _numbers(
    column: Column, cells: pa.ChunkedArray
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the column's numbers and which are missing; 0 stands where one is missing."""
    kind = cells.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        values = pc.fill_null(pc.cast(cells, pa.float64(), safe=False), np.nan).to_numpy()
        is_missing = np.isnan(values)
    else:
        values, is_missing = _parsed(column, _texts(cells))
    for code in column.missing_values:  # "0" also means "0.0"
        number = _as_number(code)
        is_missing = is_missing if number is None else is_missing | (values == number)
    return np.where(is_missing, 0.0, values), is_missing


def _parsed(
    column: Column, texts: pa.ChunkedArray
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    is_missing = _flags(pc.is_null(texts)) | _is_in(texts, column.missing_values)
    is_number = _flags(pc.fill_null(pc.match_substring_regex(texts, _NUMBER), False))
    wrong = int((~is_number & ~is_missing).sum())
    if wrong:
        raise _violation("not-a-number", column.name, f"{wrong} rows are not decimal numbers")
    kept = pc.if_else(pa.array(is_number), texts, "nan")
    values = pc.cast(kept, pa.float64()).to_numpy()
    return values, is_missing | np.isnan(values)


def _check_missing(column: Column, is_missing: NDArray[np.bool_]) -> None:
    share = float(is_missing.mean())
    if share > column.missing_max:
        what = f"{share:.1%} of its cells are missing, the contract allows {column.missing_max:.1%}"
        raise _violation("too-many-missing", column.name, what)


def _texts(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the cells as text without surrounding white space; empty text means missing."""
    texts = cells if pa.types.is_string(cells.type) else pc.cast(cells, pa.string())
    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _is_in(texts: pa.ChunkedArray, values: Sequence[str]) -> NDArray[np.bool_]:
    return _flags(pc.is_in(texts, value_set=pa.array(values, pa.string())))


def _flags(cells: pa.ChunkedArray) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = cells.to_numpy().astype(np.bool_)
    return flags


def _count(flags: pa.ChunkedArray) -> int:
    return int(_flags(pc.fill_null(flags, True)).sum())


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _violation(code: str, column: str, what: str) -> DataError:
    return DataError(code, f"column '{column}': {what}", _FOLLOW_CONTRACT)
