"""A database for all tests of extraction, and a site whose dataset comes from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from larrey_client.settings import Dataset, SiteSettings, load_settings
from tests.client.extract.database import Database, served
from tests.client.isolation.site_folder import write_site


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with served(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@dataclass(frozen=True)
class Ward:
    """A site with the dataset ``warehouse``."""

    config: Path
    settings: SiteSettings

    @property
    def dataset(self) -> Dataset:
        (dataset,) = self.settings.datasets
        return dataset

    @property
    def snapshots(self) -> list[Path]:
        return sorted((self.settings.site.state / "snapshots").glob("*.parquet"))

    def ask(self, query: str) -> None:
        """Write another query."""
        (self.config.parent / "cohort.sql").write_text(query)


@pytest.fixture
def make_ward(tmp_path: Path) -> Callable[..., Ward]:
    """Return a maker of the site; ``source`` replaces entries of its source."""

    def make(string: str, query: str = "SELECT * FROM stays", **source: object) -> Ward:
        where = {"kind": "sql", "dsn_file": "warehouse.dsn", "query_file": "cohort.sql"}
        dataset = {"name": "warehouse", "source": where | source}
        config = write_site(tmp_path / "site", dataset)
        secret = config.parent / "warehouse.dsn"
        secret.write_text(string)
        secret.chmod(0o600)
        ward = Ward(config, load_settings(config))
        ward.ask(query)
        return ward

    return make


@pytest.fixture
def ward(make_ward: Callable[..., Ward], database: Database) -> Ward:
    return make_ward(database.string)
