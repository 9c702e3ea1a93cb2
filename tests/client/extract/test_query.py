"""What the query may do on a real database, and what is told when it may not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from larrey_client.extract.query import Bounds, extract
from larrey_client.frames import memory_file
from larrey_protocol.errors import DataError
from tests.client.extract.database import Database

pytestmark = pytest.mark.system
WIDE = Bounds(timeout_s=10, max_rows=1_000_000, max_bytes=1 << 24)


@pytest.fixture
def sink() -> Iterator[int]:
    fd = memory_file("snapshot")
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("query", "code", "told"),
    [
        ("SELECT pid, weigth FROM stays", "source-query", "weigth"),
        ("SELECT note::integer FROM stays WHERE note = 'x'", "source-query", "22P02"),
        ("DELETE FROM stays", "source-query", "42601"),
        ("SELECT nextval('numbers')", "source-query", "25006"),
        ("SELECT 1 AS a; DROP TABLE stays", "source-query", "42601"),
        ("COMMIT", "source-query", "42601"),
        ("SELECT point(1, 2) AS place", "source-columns", "place"),
        ("SELECT 1 AS a, 2 AS a", "source-columns", "'a'"),
        ("SELECT pid FROM stays WHERE false", "source-empty", "no row"),
    ],
)
def test_a_query_that_is_no_plain_reading_is_refused(
    database: Database, sink: int, query: str, code: str, told: str
) -> None:
    with pytest.raises(DataError) as caught:
        extract(database.parameters, query, sink, WIDE)
    assert caught.value.code == code
    assert told in caught.value.message
    assert database.one("SELECT count(*) FROM stays") == 30


def test_what_the_database_says_about_values_is_dropped(database: Database, sink: int) -> None:
    with pytest.raises(DataError) as caught:
        extract(database.parameters, "SELECT 'Dupont'::text::integer AS a", sink, WIDE)
    assert "Dupont" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "bounds", [Bounds(10, 29, 1 << 24), Bounds(10, 1_000_000, 500), Bounds(10, 29, 500)]
)
def test_an_answer_over_its_bounds_is_refused(
    database: Database, sink: int, bounds: Bounds
) -> None:
    with pytest.raises(DataError, match="source-too-large"):
        extract(database.parameters, "SELECT * FROM stays", sink, bounds)


def test_many_rows_stream_in_order_and_whole(database: Database, sink: int) -> None:
    query = "SELECT i, 'p' || i AS pid FROM generate_series(1, 50001) AS i"
    assert extract(database.parameters, query, sink, WIDE) == 50_001
    with open(f"/proc/self/fd/{sink}", "rb") as file:
        assert pq.read_table(file)["i"].to_pylist() == list(range(1, 50_002))


def test_a_query_that_takes_too_long_is_cancelled(database: Database, sink: int) -> None:
    with pytest.raises(DataError, match="source-timeout"):
        extract(database.parameters, "SELECT pg_sleep(9)::text", sink, Bounds(0.05, 9, 1 << 20))
