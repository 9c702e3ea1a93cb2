"""A benchmark as one value: its task, its patients under each scaling, its published rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from larrey_lab.flamby.data import Scaling, Site, heart_sites, tcga_sites
from larrey_lab.flamby.published import HEART, TCGA, Row
from larrey_lab.flamby.tasks import Binary, Cox, Task

__all__ = ["Benchmark", "Sites", "heart", "tcga"]

Sites = tuple[Site, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Benchmark:
    """What is compared.

    Attributes:
        task: rounds, loss and metric.
        tables: the same patients in the same order, by scaling.
        protocol: the scaling of the published federated rows.
        pooled_test: the scaling of the published column "Pooled Test".
        own: the scalings that Larrey's own settings may use: a site's alone, or a contract's.
        rows: what was published.
    """

    task: Task
    tables: Mapping[Scaling, Sites]
    protocol: Scaling
    pooled_test: Scaling
    own: tuple[Scaling, ...]
    rows: tuple[Row, ...]

    @property
    def sites(self) -> Sites:
        """Return the sites as the published protocol scales them."""
        return self.tables[self.protocol]


def heart(path: Path | None = None) -> Benchmark:
    """Return Fed-Heart-Disease."""
    scalings: tuple[Scaling, ...] = ("site", "contract", "pooled")
    tables = {scaling: heart_sites(path, scaling=scaling) for scaling in scalings}
    return Benchmark(Binary(), tables, "site", "pooled", ("site", "contract"), HEART)


def tcga(folder: Path) -> Benchmark:
    """Return Fed-TCGA-BRCA from the folder that holds it."""
    scalings: tuple[Scaling, ...] = ("none", "contract", "pooled")
    tables = {scaling: tcga_sites(folder, scaling=scaling) for scaling in scalings}
    return Benchmark(Cox(), tables, "none", "none", ("none", "contract"), TCGA)
