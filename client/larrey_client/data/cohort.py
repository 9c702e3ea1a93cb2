"""From a hospital's source to numbers: read, drop who objects, check, split, apply the steps.

`load` does the input and output, `prepare` is pure. Only the contract's columns are kept; what else
the source holds is never stored. Messages name rules and columns with banded counts, never a value;
they stay at the site, and only a code may leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from larrey_client.data.cells import Cells, trimmed
from larrey_client.data.checks import check, check_names, present
from larrey_client.data.content import content_digest
from larrey_client.data.files import file_state
from larrey_client.data.identity import pack_hashes, patient_hash
from larrey_client.data.images import ImageRows, check_listing
from larrey_client.data.reading import PLAIN, Reading
from larrey_client.data.sources import Connector, connect
from larrey_client.data.split import PARTS, part_of, split_salt
from larrey_client.data.steps import unit_rows
from larrey_client.data.violation import Violation, unmet
from larrey_privacy.cohort import Cohort, Features
from larrey_protocol.contract import Contract
from larrey_protocol.errors import DataError

__all__ = [
    "Prepared",
    "cached_cohort",
    "examine",
    "load",
    "load_cohort",
    "prepare",
    "scan",
]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What a source became under a contract; all of it private.

    Attributes:
        cohort: the part that was asked for.
        content: digest of all rows read (`content.content_digest`), before any was dropped.
        excluded: how many patients were dropped.
        cells: what was checked, of all parts.
    """

    cohort: Cohort
    content: str
    excluded: int
    cells: Cells = field(repr=False)


def load_cohort(path: Path, contract: Contract) -> Cohort:
    """Return the cohort in a CSV or Parquet file, for a reader without secret or exclusions.

    Raises:
        DataError: as `load`.
    """
    return load(connect(path), contract).cohort


def load(source: Connector, contract: Contract, reading: Reading = PLAIN) -> Prepared:
    """Return what the source becomes under the contract.

    Raises:
        DataError: as the connector's methods and `prepare`; ``column-missing``.
    """
    table, violations = _read(source, contract)
    return prepare(table, contract, reading, root=source.root, known=violations)


def examine(
    source: Connector,
    contract: Contract,
    reading: Reading = PLAIN,
) -> tuple[Cells, list[Violation], int]:
    """Return the checked cells, everything that is wrong, and how many patients were dropped.

    Raises:
        DataError: as the connector's methods.
    """
    table, violations = _read(source, contract)
    kept, excluded = _without(table, contract, reading)
    cells = Cells(contract, kept)
    return cells, [*violations, *_violations(contract, cells, source.root)], excluded


def prepare(
    table: pa.Table,
    contract: Contract,
    reading: Reading = PLAIN,
    *,
    root: Path = Path(),
    known: list[Violation] | None = None,
) -> Prepared:
    """Return the cohort that a table becomes under the contract: checked, preprocessed, indexed.

    Args:
        table: at least the contract's columns that are there.
        contract: of the study.
        reading: who is dropped, and which part is wanted; checks see all parts.
        root: the folder of the images that a table lists.
        known: violations that were found before.

    Raises:
        DataError: the code of the rule that fails (`checks.RULES`, ``column-missing``,
            ``image-path``, ``image-missing``, ``image-digest``), ``contract-unmet`` if several do,
            or ``part-empty``.
    """
    kept, excluded = _without(table, contract, reading)
    cells = Cells(contract, kept)
    violations = [*(known or []), *_violations(contract, cells, root)]
    if violations:
        raise unmet(violations)
    units = cells.units
    parts = part_of(units.ids, _salt(contract, reading), contract.split)
    rows = np.flatnonzero(parts[units.codes] == PARTS.index(reading.part))
    if not len(rows):
        raise DataError(
            "part-empty", f"no {contract.unit.name} falls into '{reading.part}'", "Add patients."
        )
    _, patient = np.unique(units.codes[rows], return_inverse=True)
    cohort = Cohort(
        _features(cells, root, rows),
        cells.labels.value[rows],
        patient.astype(np.int64),
    )
    return Prepared(cohort, content_digest(table), excluded, cells)


def scan(source: Connector, unit: str, secret: bytes) -> bytes:
    """Return the hashes of all patients of a source, sorted, each once, 16 bytes each.

    Raises:
        DataError: as the connector's methods; ``column-missing``.
    """
    names = source.names()
    if names.count(unit) != 1:
        raise DataError("column-missing", f"the column '{unit}' is not there once", "Correct it.")
    ids = trimmed(source.read([unit])[unit]).unique().drop_null().to_pylist()
    return pack_hashes(patient_hash(text, secret) for text in ids)


def cached_cohort(path: Path, contract: str) -> Cohort:
    """Return the cohort, read again only when the file or the contract's JSON has changed.

    Raises:
        DataError: as `load`.
    """
    return _cohort_as_of(path, file_state(path), contract)


@lru_cache(maxsize=1)
def _cohort_as_of(path: Path, _state: tuple[int, ...], contract: str) -> Cohort:
    return load_cohort(path, Contract.model_validate_json(contract))


def _read(source: Connector, contract: Contract) -> tuple[pa.Table, list[Violation]]:
    names = source.names()
    found = present(contract, names)
    missing = check_names(contract, names)
    if not found:
        raise unmet(missing)
    return source.read(found), missing


def _without(table: pa.Table, contract: Contract, reading: Reading) -> tuple[pa.Table, int]:
    """Return the table without the rows of the excluded, and how many patients they were."""
    if not reading.excluded or contract.unit.column not in table.column_names:
        return table, 0
    units = Cells(contract, table).units
    is_out = np.array(
        [patient_hash(text, reading.secret) in reading.excluded for text in units.ids] + [False]
    )  # the last is for the code -1: nobody
    return table.filter(pa.array(~is_out[units.codes])), int(is_out.sum())


def _violations(contract: Contract, cells: Cells, root: Path) -> list[Violation]:
    found = check(contract, cells)
    image = contract.image
    if image is not None and cells.rows and cells.has(image.path, image.digest):
        found += check_listing(root, *_listing(cells))
    return found


def _salt(contract: Contract, reading: Reading) -> bytes:
    return split_salt(contract.split, reading.secret) if contract.split else b""


def _features(cells: Cells, root: Path, rows: NDArray[np.int64]) -> Features:
    contract = cells.contract
    if contract.image is not None:
        paths, digests = _listing(cells)
        return ImageRows(
            root, contract.image, [paths[row] for row in rows], [digests[row] for row in rows]
        )
    features = np.column_stack([cells.features(column) for column in contract.columns])[rows]
    if contract.rows.unit_norm:
        features = unit_rows(features)
    return np.ascontiguousarray(features, dtype=np.float32)


def _listing(cells: Cells) -> tuple[list[str], list[str]]:
    image = cells.contract.image
    if image is None:
        return [], []
    return cells.texts(image.path).to_pylist(), cells.texts(image.digest).to_pylist()
