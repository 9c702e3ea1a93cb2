"""Cohorts, ledgers and models that the privacy tests share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from larrey_privacy.cohort import Cohort
from larrey_privacy.ledger_store import Ledger, open_exclusive

MakeCohort = Callable[..., Cohort]


@pytest.fixture
def make_cohort() -> MakeCohort:
    """Give a maker of random cohorts: patients with the given numbers of rows, in mixed order."""

    def make(
        counts: list[int], shape: tuple[int, ...] = (5,), classes: int = 2, seed: int = 1
    ) -> Cohort:
        rng = np.random.default_rng(seed)
        patient = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
        features = rng.normal(size=(len(patient), *shape)).astype(np.float32)
        label = rng.integers(0, classes, len(patient)).astype(np.float32)
        return Cohort(features, label, patient)

    return make


class Site:
    """A ledger on a real file, with the transactions that its owner makes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection: sqlite3.Connection = open_exclusive(path)
        self.ledger = Ledger.open(self.connection)

    @contextmanager
    def writing(self) -> Iterator[Ledger]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.ledger
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def restart(self) -> None:
        self.connection.close()
        self.connection = open_exclusive(self.path)
        self.ledger = Ledger.open(self.connection)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Give a site with an empty ledger."""
    opened = Site(tmp_path / "site.db")
    yield opened
    opened.connection.close()


@pytest.fixture
def make_site() -> Callable[[Path], Site]:
    """Give a maker of sites for tests that open several."""
    return Site
