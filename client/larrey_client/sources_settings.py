"""Where a dataset's rows come from, as ``site.toml`` says it: a file, a database, or images.

    source = {kind = "file", path = "heart.parquet"}
    source = {kind = "sql", dsn_file = "warehouse.dsn", query_file = "heart.sql"}
    source = {kind = "images", manifest = "xrays.parquet", root = "/data/xrays"}

A new kind of source is a record here and a connector in
`larrey_client.data.sources`; nothing else knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from larrey_protocol.tomlfile import Record

__all__ = ["FileSource", "ImageSource", "Source", "SqlSource", "place_of", "rooted"]


class FileSource(Record):
    """One CSV or Parquet file."""

    kind: Literal["file"]
    path: Path


class SqlSource(Record):
    """One read-only query to one PostgreSQL database; its answer is kept as a snapshot.

    ``dsn_file`` holds the connection string with the password, as PostgreSQL defines it, and must
    be closed to others (mode 0600). ``refresh`` says when the query runs again: "manual" only by
    `larrey-site data extract`, "approval" also whenever a study is approved.
    """

    kind: Literal["sql"]
    dsn_file: Path
    query_file: Path  # one SELECT
    refresh: Literal["manual", "approval"] = "manual"
    timeout_s: float = Field(3600.0, gt=0)  # the whole extraction
    max_rows: int = Field(10_000_000, ge=1)
    max_mb: int = Field(4096, ge=1)  # of the snapshot


class ImageSource(Record):
    """Images below one folder, listed by a Parquet file."""

    kind: Literal["images"]
    manifest: Path
    root: Path


Source = Annotated[FileSource | SqlSource | ImageSource, Field(discriminator="kind")]


def rooted(source: FileSource | SqlSource | ImageSource, folder: Path) -> Source:
    """Return ``source`` with every path counted from ``folder``."""
    paths = {name: folder / value for name, value in iter(source) if isinstance(value, Path)}
    return source.model_copy(update=paths)


def place_of(source: FileSource | SqlSource | ImageSource) -> Path:
    """Return the one file that no two datasets may share: their patients would be the same."""
    match source:
        case FileSource():
            return source.path
        case SqlSource():
            return source.query_file
        case ImageSource():
            return source.manifest
