"""Where rows come from. A connector reads named columns; nothing else knows the file's format.

A new source (OMOP, FHIR, DICOM) is one more class and one more line in ``_CONNECTORS``. Only the
columns asked for are read; what else the source holds is never stored.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from larrey_client.data.files import file_state
from larrey_protocol.errors import DataError

__all__ = ["Connector", "connect"]


class Connector(Protocol):
    """A source of rows."""

    @property
    def root(self) -> Path:
        """Return the folder that holds the files to which rows may point; none outside it."""

    def names(self) -> list[str]:
        """Return the names of all columns, in order, doubles included."""

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return these columns, each of which is there exactly once.

        Raises:
            DataError: ``data-missing``, ``data-empty`` or ``data-unreadable``.
        """

    def fingerprint(self) -> tuple[int, ...]:
        """Return what changes when the source may have other rows; private."""


def connect(path: Path, root: Path | None = None) -> Connector:
    """Return the connector of what a dataset's declaration gave: rows, and files beside them.

    Args:
        path: of the rows (`larrey_client.extract.snapshots.rows_of`); its ending names the format.
        root: the folder of the files to which rows point; by default the one with the rows.

    Raises:
        DataError: ``data-format`` where no connector fits.
    """
    make = _CONNECTORS.get(path.suffix.lower())
    if make is None:
        known = ", ".join(sorted(_CONNECTORS))
        raise DataError("data-format", f"{path} is none of: {known}", "Convert it.")
    return make(path, root or path.parent)


@dataclass(frozen=True, slots=True)
class _File:
    """A table in one file."""

    path: Path
    root: Path

    def fingerprint(self) -> tuple[int, ...]:
        return file_state(self.path)


class CsvFile(_File):
    """A CSV file with a header line, UTF-8, commas; every cell is read as text."""

    def names(self) -> list[str]:
        """Return the header's cells."""
        with _reading(self.path), self.path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return the columns as text; an empty cell is missing."""
        options = pacsv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        )
        with _reading(self.path):
            return pacsv.read_csv(
                self.path,
                pacsv.ReadOptions(use_threads=False),
                pacsv.ParseOptions(newlines_in_values=True),
                options,
            )


class ParquetFile(_File):
    """A Parquet file; its columns keep their types."""

    def names(self) -> list[str]:
        """Return the schema's names."""
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            names: list[str] = file.schema_arrow.names
            return names

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return the columns."""
        with _reading(self.path), pq.ParquetFile(self.path) as file:
            return file.read(columns=list(columns), use_threads=False)


_CONNECTORS: Mapping[str, Callable[[Path, Path], Connector]] = {
    ".csv": CsvFile,
    ".parquet": ParquetFile,
}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong with a file into a code; a library's text may quote cells."""
    if not path.is_file():
        raise DataError("data-missing", f"expected a file at {path}", "Check the path in site.toml")
    if path.stat().st_size == 0:
        raise DataError("data-empty", f"{path} is empty", "Export the cohort again.")
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        kind = type(error).__name__
        raise DataError(
            "data-unreadable", f"{path} cannot be read ({kind})", "Export it again."
        ) from None
