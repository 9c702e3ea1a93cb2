"""The coordinator's parts that several test files use: a bench study, a real federation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_server.aggregator import Aggregator
from tests.server.peers import (
    Federation,
    Folder,
    SitePeer,
    running,
)
from tests.server.study_bench import Bench, make_study


@pytest.fixture(scope="module")
def aggregator() -> Iterator[Aggregator]:
    process = Aggregator.start()
    yield process
    process.stop()


@pytest.fixture
def bench(tmp_path: Path, aggregator: Aggregator) -> Iterator[Bench]:
    table = Bench(tmp_path / "undisturbed", make_study(), aggregator)
    yield table
    table.journal.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder.make(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def federation(folder: Folder, tmp_path: Path) -> Iterator[Federation]:
    yield from running(folder, tmp_path / "state")


@pytest.fixture
def alpha(federation: Federation) -> Iterator[SitePeer]:
    with federation.site("alpha") as site:
        yield site
