"""From a public data set to a simulated federation: who trains where, who is held out.

Rows are read and checked by the code that a hospital runs. Public or synthetic data only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from larrey_client.data.cohort import load_cohort
from larrey_lab.heart import read_heart
from larrey_lab.rand import read_rand
from larrey_lab.rehearsal import HeldOut, Split, cohorts_of, split_cohorts
from larrey_lab.scores import groups_of, measures
from larrey_lab.simulation.partition import Partition, deal
from larrey_privacy.cohort import Cohort
from larrey_protocol.errors import DataError, FileError, UsageError
from larrey_protocol.study import Study, StudySite
from larrey_protocol.tasks import output_count

__all__ = ["PUBLIC", "Simulated", "read_sites", "simulated"]

PUBLIC = {"heart": read_heart, "rand": read_rand}  # tables that packages carry
_SUFFIXES = (".csv", ".parquet")
_MOST_SITES = 1000  # of a study file


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """A study over the sites that are simulated, with their rows.

    Attributes:
        study: with these sites; the original where the partition is natural.
        split: training cohorts by site, and held-out rows of all.
    """

    study: Study
    split: Split


def read_sites(study: Study, data: str) -> dict[str, Cohort]:
    """Return whole cohorts: of each site of a folder, or of a single file under the name ``all``.

    Args:
        study: gives contract and site names.
        data: a folder with ``<site>.csv`` or ``.parquet``, one file, or a name of `PUBLIC`.

    Raises:
        FileError: ``missing-data`` with the nearest public table or file.
        DataError: rows do not meet the contract.
    """
    path = Path(data)
    if path.is_file():
        return {"all": load_cohort(path, study.contract)}
    if path.is_dir():
        return {name: load_cohort(_file(path, name), study.contract) for name in _names(study)}
    if data not in PUBLIC:
        near = difflib.get_close_matches(data, PUBLIC, n=1, cutoff=0.0)[0]
        raise FileError(
            "missing-data",
            f"'{data}' is no file, folder or public table",
            f"Did you mean '{near}'?",
        )
    tables = PUBLIC[data]()
    missing = [name for name in _names(study) if name not in tables.sites]
    if missing:
        raise _no_site(missing[0], f"public table '{data}'", list(tables.sites))
    return cohorts_of(tables, study)


def simulated(
    study: Study,
    cohorts: Mapping[str, Cohort],
    partition: Partition,
    *,
    sites: int | None = None,
    held_out: float = 0.3,
    seed: int = 0,
) -> Simulated:
    """Return the study over simulated sites; no patient is at two of them, or held out and trained.

    Where patients are dealt out, a site's public number of patients is how many it got.

    Raises:
        UsageError: ``partition-mismatch``, ``invalid-share``, ``too-many-sites``.
        DataError: ``one-class`` where nothing can be judged.
    """
    if not 0 < held_out < 1:
        raise UsageError(
            "invalid-share", f"--held-out must be in (0, 1), found {held_out:g}", "Try 0.3."
        )
    split = split_cohorts(cohorts, study.contract.label, held_out=held_out, seed=seed)
    _require_outcomes(study, split.held_out)
    if partition.kind == "natural":
        _require_natural(study, cohorts, sites)
        return Simulated(study, split)
    count = len(study.file.sites) if sites is None else sites
    if not 1 <= count <= _MOST_SITES:
        raise UsageError(
            "too-many-sites",
            f"--sites must be from 1 to {_MOST_SITES}, found {count}",
            "Correct it.",
        )
    return _dealt(study, split, partition, count, seed)


def _dealt(study: Study, split: Split, partition: Partition, count: int, seed: int) -> Simulated:
    pool = _pooled(list(split.training.values()))
    group = groups_of(study.contract.label, pool.label, pool.patient)
    place = deal(group, count, partition, seed=seed)[pool.patient]
    width = len(str(count))
    names = [f"site-{number:0{width}}" for number in range(1, count + 1)]
    order = np.argsort(place, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(place, minlength=count))[:-1])
    training = {name: _rows(pool, rows) for name, rows in zip(names, parts, strict=True)}
    held = split.held_out
    nowhere = HeldOut(held.features, held.label, held.patient, np.full(len(held.label), -1))
    sites = tuple(StudySite(name=name, patients=c.patients) for name, c in training.items())
    limits = study.file.rounds.model_copy(update={"quorum": 1, "required": ()})
    file = study.file.model_copy(update={"sites": sites, "rounds": limits})
    return Simulated(Study(file=file, contract=study.contract), Split(training, nowhere))


def _require_outcomes(study: Study, held: HeldOut) -> None:
    label, shape = study.contract.label, (len(held.label), output_count(study.contract))
    for measure in measures(label):
        if measure.or_none(held.label.astype(np.float64), np.zeros(shape)) is None:
            raise DataError(
                "one-class",
                f"the held-out rows have too few different outcomes for the score {measure.name}",
                "Hold out more patients.",
            )


def _pooled(cohorts: Sequence[Cohort]) -> Cohort:
    firsts = np.cumsum([0, *(cohort.patients for cohort in cohorts)])
    return Cohort(
        np.concatenate([np.asarray(cohort.features) for cohort in cohorts]),
        np.concatenate([cohort.label for cohort in cohorts]),
        np.concatenate([c.patient + first for c, first in zip(cohorts, firsts, strict=False)]),
    )


def _rows(pool: Cohort, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Cohort:
    _, patient = np.unique(pool.patient[rows], return_inverse=True)
    return Cohort(pool.features[rows], pool.label[rows], patient.astype(np.int64))


def _require_natural(study: Study, cohorts: Mapping[str, Cohort], sites: int | None) -> None:
    if tuple(cohorts) != study.file.site_names:
        raise UsageError(
            "partition-mismatch",
            "the natural partition needs one file a site, found a single file",
            "Give a folder with a file a site, or --partition iid.",
        )
    if sites not in (None, len(cohorts)):
        raise UsageError(
            "partition-mismatch",
            f"the natural partition has the study's {len(cohorts)} sites, --sites says {sites}",
            "Leave --sites out, or add --partition dirichlet:0.3",
        )


def _names(study: Study) -> tuple[str, ...]:
    return study.file.site_names


def _file(folder: Path, site: str) -> Path:
    for suffix in _SUFFIXES:
        if (folder / f"{site}{suffix}").is_file():
            return folder / f"{site}{suffix}"
    raise _no_site(site, str(folder), [path.stem for path in sorted(folder.iterdir())])


def _no_site(site: str, where: str, found: Sequence[str]) -> FileError:
    near = difflib.get_close_matches(site, found, n=1, cutoff=0.0)
    text = f"{where} has no table of site '{site}'"
    return FileError("missing-data", text, f"Nearest: '{near[0]}'." if near else "Add it.")
