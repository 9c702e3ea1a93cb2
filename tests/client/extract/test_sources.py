"""How site.toml says where rows come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from larrey_client.extract.relay import Target
from larrey_client.extract.snapshots import current, keep, sole_writer
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.sources_settings import FileSource, ImageSource, SqlSource, rooted
from larrey_protocol.errors import DataError, FileError

_SITE = """
[site]
name = "alpha"
[coordinator]
address = "localhost:1"
authority = "ca.crt"
[identity]
certificate = "tls.crt"
key = "tls.key"
signing_key = "signing.ed25519"
[consortium]
key = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""
_SQL = '{kind = "sql", dsn_file = "w.dsn", query_file = "w.sql"}'


def _load(folder: Path, *datasets: str) -> SiteSettings:
    entries = [f'[[datasets]]\nname = "d{n}"\n{text}\n' for n, text in enumerate(datasets)]
    path = folder / "site.toml"
    path.write_text(_SITE + "".join(entries))
    return load_settings(path)


def test_each_kind_of_source_is_read_and_its_paths_count_from_the_file(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        'path = "a.csv"',
        'source = {kind = "file", path = "b.parquet"}',
        f"source = {_SQL}",
        'source = {kind = "images", manifest = "m.parquet", root = "/data"}',
    )
    assert [dataset.origin for dataset in settings.datasets] == [
        FileSource(kind="file", path=tmp_path / "a.csv"),
        FileSource(kind="file", path=tmp_path / "b.parquet"),
        SqlSource(kind="sql", dsn_file=tmp_path / "w.dsn", query_file=tmp_path / "w.sql"),
        ImageSource(kind="images", manifest=tmp_path / "m.parquet", root=Path("/data")),
    ]


@pytest.mark.parametrize(
    ("datasets", "told"),
    [
        (['path = "a.csv"\nsource = {kind = "file", path = "a.csv"}'], "either path or source"),
        (["epsilon = 1.0"], "either path or source"),
        (['source = {kind = "oracle", path = "a"}'], "kind"),
        (['source = {kind = "sql", dsn_file = "a", query_fil = "b"}'], "query_file"),
        ([f"source = {_SQL}", f"source = {_SQL}"], "same file"),
        (['path = "a.csv"', 'source = {kind = "file", path = "./a.csv"}'], "same file"),
    ],
)
def test_a_wrong_source_is_named(tmp_path: Path, datasets: list[str], told: str) -> None:
    with pytest.raises(FileError) as caught:
        _load(tmp_path, *datasets)
    assert told in str(caught.value)


def test_rooting_changes_paths_alone() -> None:
    source = SqlSource(kind="sql", dsn_file=Path("a"), query_file=Path("/b"), max_rows=7)
    found = rooted(source, Path("/site"))
    assert found == source.model_copy(update={"dsn_file": Path("/site/a")})


def test_a_snapshot_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with sole_writer(tmp_path, "a") as fd:
        os.write(fd, b"one")
        first = keep(tmp_path, "a", fd)
    with sole_writer(tmp_path, "a") as fd:
        os.write(fd, b"half, then killed")
    with sole_writer(tmp_path, "a-b") as fd:
        os.write(fd, b"another dataset")
        other = keep(tmp_path, "a-b", fd)
    assert (current(tmp_path, "a"), current(tmp_path, "a-b")) == (first, other)
    assert first.read_bytes() == b"one"


@pytest.mark.parametrize(
    ("parameters", "target"),
    [
        ({"host": "db.example"}, Target("db.example", 5432)),
        (
            {"host": "db.example", "hostaddr": "192.0.2.7", "port": "6000"},
            Target("192.0.2.7", 6000),
        ),
        ({"host": "/run/postgresql"}, Target("/run/postgresql", 5432)),
        ({}, None),
        ({"host": "a,b"}, None),
        ({"host": "a", "port": "1,2"}, None),
        ({"host": "a", "service": "x"}, None),
    ],
)
def test_a_connection_string_names_one_database(
    parameters: dict[str, Any], target: Target | None
) -> None:
    if target is None:
        with pytest.raises(DataError, match="source-connection"):
            Target.of(parameters)
    else:
        assert Target.of(parameters) == target
