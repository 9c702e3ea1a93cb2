"""A cohort in memory: rows of numbers, each belonging to one patient. Does not import torch.

Knows no column names and reads no files; the site's reader makes it from a snapshot that met its
contract. Sensitive: never logged, never sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.errors import DataError

__all__ = ["Cohort", "Features"]


class Features(Protocol):
    """Rows of numbers: an array in memory, or what reads rows when they are asked for."""

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Return float32."""

    @property
    def ndim(self) -> int:
        """Return the number of dimensions, rows included."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (rows, …)."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Return these rows, in this order."""


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Rows of a site's patients.

    Attributes:
        features: float32 "(rows, …)", in memory or read by row.
        label: float32 "(rows,)".
        patient: int64 "(rows,)", every value of 0..patients-1 at least once.

    Raises:
        DataError: ``cohort-malformed`` when lengths, types or patient numbers do not fit.
    """

    features: Features
    label: NDArray[np.float32]
    patient: NDArray[np.int64]
    _order: NDArray[np.int64] = field(init=False, repr=False)
    _starts: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = len(self.patient)
        counts = _counts(self.patient)
        is_whole = rows > 0 and len(counts) > 0 and bool((counts > 0).all())
        has_types = all(
            array.dtype == kind
            for array, kind in (
                (self.features, np.float32),
                (self.label, np.float32),
                (self.patient, np.int64),
            )
        )
        if not (is_whole and has_types and rows == len(self.features) == len(self.label)):
            raise DataError(
                "cohort-malformed",
                "expected float32 features and labels and int64 patients numbered without gaps.",
            )
        object.__setattr__(self, "_order", np.argsort(self.patient, kind="stable"))
        object.__setattr__(self, "_starts", np.concatenate(([0], np.cumsum(counts))))

    def __repr__(self) -> str:
        """Return a text without any data in it."""
        return "Cohort(…)"

    @property
    def patients(self) -> int:
        """Return the number of patients; private."""
        return len(self._starts) - 1

    def rows_of(self, patients: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows of the patients, patient after patient, and how many each has."""
        starts = self._starts[patients]
        counts = self._starts[patients + 1] - starts
        firsts = np.cumsum(counts) - counts
        within = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
        return self._order[np.repeat(starts, counts) + within], counts


def _counts(patient: NDArray[np.int64]) -> NDArray[np.int64]:
    if patient.ndim != 1 or patient.size == 0 or patient.min() < 0 or patient.max() >= patient.size:
        return np.zeros(0, dtype=np.int64)
    return np.bincount(patient).astype(np.int64)
