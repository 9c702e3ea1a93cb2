"""Public tables as sites would hold them: rows of text, split by patient, written as CSV.

Only the lab does this, with public data. A hospital's rows are read by `larrey_client.data` and
are never split or written by anything here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Row", "SiteTables", "split_patients", "split_rows", "write_csv"]

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SiteTables:
    """One public data set, cut by the hospital or site its rows came from.

    Attributes:
        columns: of every row, in the order of the CSV file.
        unit: the column that says whose row it is.
        label: the column of the outcome, "1" or "0".
        sites: rows by site name, in the study's order.
    """

    columns: tuple[str, ...]
    unit: str
    label: str
    sites: Mapping[str, tuple[Row, ...]]


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows with a header line; an empty cell is a missing value."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def split_rows(
    tables: SiteTables, site: str, *, held_out: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """Return a site's training rows and held-out rows; a patient is wholly in one of them.

    The same patients are held out as `split_patients` holds out, numbered by first appearance.
    """
    rows = tables.sites[site]
    positive: dict[str, bool] = {}
    for row in rows:
        positive[row[tables.unit]] = positive.get(row[tables.unit], False) or (
            row[tables.label] == "1"
        )
    mask = split_patients(np.array(list(positive.values())), held_out=held_out, seed=seed)
    held = {unit for unit, is_held in zip(positive, mask, strict=True) if is_held}
    training = [row for row in rows if row[tables.unit] not in held]
    return training, [row for row in rows if row[tables.unit] in held]


def split_patients(group: NDArray[np.generic], *, held_out: float, seed: int) -> NDArray[np.bool_]:
    """Return which patients are held out: the share ``held_out`` of each group, rounded.

    Args:
        group: whether any row of the patient has the outcome, or which outcome, "(patients,)".
        held_out: share in (0, 1).
        seed: of the split alone; public, and unrelated to the seeds of noise and sampling.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    mask = np.zeros(len(group), np.bool_)
    for kind in np.unique(group):
        members = np.flatnonzero(group == kind)
        mask[random.permutation(members)[: round(held_out * len(members))]] = True
    return mask
