"""Small tables in the forms of FLamby, for tests that need no real patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from larrey_lab.flamby.data import Part, Site

_FEATURES = 39


def write_tcga(folder: Path, *, patients: int = 60) -> Path:
    """Write FLamby's two files with made-up patients of six regions; one has no region."""
    random = np.random.default_rng(0)
    table = ["pid," + ",".join(f"f{i}" for i in range(_FEATURES)) + ",E,T"]
    split = ["pid,fold,fold2"]
    for i in range(patients):
        cells = [int(random.integers(30, 90)), *random.integers(0, 2, _FEATURES - 1)]
        table.append(",".join(map(str, [f"p{i}", *cells, float(i % 3 == 0), 100.0 + i])))
        kind = "test" if i % 5 == 0 else "train"
        split.append(f"p{i},{kind},{kind}_{i % 6}")
    table.append(",".join(["nobody", *["1"] * _FEATURES, "0.0", "5.0"]))
    (folder / "brca.csv").write_text("\n".join(table) + "\n")
    (folder / "train_test_split.csv").write_text("\n".join(split) + "\n")
    return folder


def binary_sites(*, patients: int = 40, features: int = 3, seed: int = 0) -> tuple[Site, ...]:
    """Return three sites whose label follows the first feature."""
    random = np.random.default_rng(seed)

    def part(count: int) -> Part:
        x = random.normal(size=(count, features)).astype(np.float32)
        y = (x[:, :1] + 0.5 * random.normal(size=(count, 1)) > 0).astype(np.float32)
        return Part(x, y)

    return tuple(Site(f"site-{i}", part(patients + 7 * i), part(20)) for i in range(3))


def survival_part(*, patients: int = 30, features: int = 3, seed: int = 0) -> Part:
    """Return patients whose times have ties."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(patients, features)).astype(np.float32)
    event = random.integers(0, 2, patients)
    return Part(x, np.column_stack([event, random.integers(1, 15, patients)]).astype(np.float32))
