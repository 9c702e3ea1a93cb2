"""Run the hospital's own query, read only, and stream its answer into a Parquet file.

Imported only in the extract process, after it was confined. A message names columns and SQLSTATE
codes; what a database says about values is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from larrey_protocol.errors import DataError

__all__ = ["Bounds", "extract"]

_BATCH_ROWS = 20_000
# PostgreSQL's type numbers (catalog/pg_type.dat): booleans, whole numbers, other numbers, and what
# is kept as text: text, varchar, char, uuid, date, timestamps.
_TYPES: Mapping[int, pa.DataType] = {
    16: pa.bool_(),
    **dict.fromkeys((20, 21, 23), pa.int64()),
    **dict.fromkeys((700, 701, 1700), pa.float64()),
    **dict.fromkeys((18, 19, 25, 1042, 1043, 2950, 1082, 1114, 1184), pa.string()),
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an answer may cost."""

    timeout_s: float
    max_rows: int
    max_bytes: int


def extract(parameters: Mapping[str, Any], query: str, sink: int, bounds: Bounds) -> int:
    """Write the query's answer to the file ``sink``; return the number of rows.

    One transaction, read only, of one snapshot of the database, through a cursor: of the query one
    SELECT is all that the database takes.

    Raises:
        DataError: ``source-login``, ``source-untrusted``, ``source-refused``, ``source-query``,
            ``source-timeout``, ``source-columns``, ``source-empty`` or ``source-too-large``.
    """
    with _connected(parameters) as connection, _explained():
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        limit_ms = str(max(1, int(bounds.timeout_s * 1000)))
        connection.execute("SELECT set_config('statement_timeout', %s, true)", [limit_ms])
        with connection.cursor(name="larrey") as cursor:
            cursor.execute(query.encode())
            return _write(cursor, _schema(cursor.description or ()), sink, bounds)


def _write(
    cursor: psycopg.ServerCursor[tuple[Any, ...]],  # Any: cells
    schema: pa.Schema,
    sink: int,
    bounds: Bounds,
) -> int:
    count = 0
    with (
        os.fdopen(os.dup(sink), "wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while rows := cursor.fetchmany(_BATCH_ROWS):
            count += len(rows)
            writer.write_batch(_batch(rows, schema))
            if count > bounds.max_rows or file.tell() > bounds.max_bytes:
                raise DataError(
                    "source-too-large",
                    f"the query gives more than {bounds.max_rows} rows or {bounds.max_bytes} bytes",
                    "Select fewer rows or columns, or raise max_rows or max_mb.",
                )
    if not count:
        raise DataError("source-empty", "the query gives no row", "Check the query.")
    return count


def _schema(columns: Sequence[psycopg.Column]) -> pa.Schema:
    names = [column.name for column in columns]
    for column in columns:
        if names.count(column.name) > 1:
            raise _bad_column(column.name, "comes twice", "Name each with AS.")
        if column.type_code not in _TYPES:
            raise _bad_column(column.name, f"has the type {column.type_display}", "Cast it: ::text")
    return pa.schema([(column.name, _TYPES[column.type_code]) for column in columns])


def _batch(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:  # Any: cells
    columns = zip(*rows, strict=True)
    arrays = [_array(list(cells), field.type) for cells, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(cells: list[Any], kind: pa.DataType) -> pa.Array:  # Any: cells
    if kind == pa.string():
        cells = [None if cell is None else str(cell) for cell in cells]
    elif kind == pa.float64():
        cells = [None if cell is None else float(cell) for cell in cells]
    return pa.array(cells, kind)


@contextmanager
def _connected(parameters: Mapping[str, Any]) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Give a connection; nothing is ever committed."""
    try:
        connection = psycopg.connect(**parameters)
    except psycopg.Error as error:
        raise _refused(str(error)) from None
    try:
        yield connection
    finally:
        connection.close()


def _refused(text: str) -> DataError:
    """Return why there is no connection; the library's text stays here, it names accounts."""
    if "certificate" in text or "SSL error" in text:
        return DataError(
            "source-untrusted",
            "the database's certificate is not the one that the connection string asks for",
            "Check sslmode, sslrootcert and the host's name.",
        )
    if "authentication failed" in text or "no password" in text:
        return DataError(
            "source-login", "the database refuses the account or its password", "Check both."
        )
    return DataError(
        "source-refused", "the database did not accept the connection", "Read the database's log."
    )


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.QueryCanceled:
        raise DataError(
            "source-timeout", "the query takes longer than timeout_s", "Raise it, or index."
        ) from None
    except psycopg.Error as error:
        state = error.sqlstate or "none"
        # Class 42, syntax and access: its texts quote the query's own words, never a value.
        said = f": {error.diag.message_primary}" if state.startswith("42") else ""
        raise DataError(
            "source-query",
            f"the database refuses the query, SQLSTATE {state}{said}",
            "Try it with psql, as the same account and in a read-only transaction.",
        ) from None


def _bad_column(name: str, what: str, step: str) -> DataError:
    return DataError("source-columns", f"column '{name}' of the query {what}", step)
