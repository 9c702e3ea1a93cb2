"""A site's datasets as its people ask about them: what there is, and whether it meets a contract.

Nothing here leaves the site. The last result of each check is kept in the state folder, by rule and
without a count.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larrey_client.data.secret import site_secret
from larrey_client.extract.snapshots import rows_of
from larrey_client.extract.taking import ready_rows
from larrey_client.loading import reading_of
from larrey_client.memberships import dossier_for
from larrey_client.records import SiteRecords
from larrey_client.settings import Dataset, SiteSettings
from larrey_client.sources_settings import place_of
from larrey_client.store import open_readonly
from larrey_protocol.contract import Contract
from larrey_protocol.errors import DataError, FileError, UsageError
from larrey_protocol.permit import Permit
from larrey_protocol.tomlfile import load_toml

if TYPE_CHECKING:
    from larrey_client.data.cells import Cells
    from larrey_client.data.violation import Violation

__all__ = ["check_dataset", "list_datasets"]

Json = dict[str, Any]  # Any: JSON values are recursive
_RESULTS = "checks.json"


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a dataset is compared with, and for whom."""

    name: str
    contract: Contract
    permit: Permit | None
    dataset: str  # where the study was approved; empty if it was not


def list_datasets(settings: SiteSettings) -> list[Json]:
    """Return every declared dataset: source, unit, family, and its last checks."""
    results = _results(settings.site.state)
    with _families(settings.site.state) as families:
        return [
            {
                "name": dataset.name,
                "source": dataset.origin.kind,
                "place": str(place_of(dataset.origin)),
                "is_there": _is_there(dataset, settings.site.state),
                "unit": dataset.unit or "",
                "family": families.get(dataset.name, ""),
                "checks": results.get(dataset.name, {}),
            }
            for dataset in settings.datasets
        ]


def check_dataset(settings: SiteSettings, reference: str, dataset: str | None, now: float) -> Json:
    """Return how a dataset meets each rule of a contract; counts are in bands.

    Args:
        settings: of the site.
        reference: a study by name or digest, or a path of a contract, ending in ".toml".
        dataset: by name; needed where there are several and the study was not approved yet.
        now: seconds since 1970.

    Raises:
        UsageError: ``study-unknown``, ``study-ambiguous``, ``dataset-required`` or
            ``dataset-unknown``; FileError: the contract's file is not one.
        DataError: the rows cannot be read.
    """
    from larrey_client.data.cohort import examine
    from larrey_client.data.sources import connect

    wish = _wish(settings, reference)
    chosen = _choose(settings, dataset or wish.dataset or None)
    reading = reading_of(
        settings,
        chosen,
        wish.contract,
        wish.permit,
        secret=site_secret(settings.site.state),
        now=now,
    )
    source = connect(ready_rows(settings, chosen), reading.root)
    cells, violations, excluded = examine(source, wish.contract, reading)
    if wish.contract.image is not None and not violations:
        violations = list(_broken_images(source.root, cells))
    report = _report(cells, violations, excluded)
    report |= {"dataset": chosen.name, "contract": wish.name}
    _keep(settings.site.state, chosen.name, wish.name, report, now)
    return report


def _wish(settings: SiteSettings, reference: str) -> _Wish:
    if reference.endswith(".toml"):
        contract = load_toml(Path(reference), Contract)
        head = contract.contract
        return _Wish(f"{head.name} {head.version}", contract, None, "")
    with closing(open_readonly(settings.site.state)) as connection:
        records = SiteRecords(connection)
        known = records.find(reference)
        dataset = known.decision.dataset if known.decision else ""
        study, dossier = known.study, dossier_for(records, settings, known.scope)
        permit = dossier.permit(study.file.study.permit)[1]
        return _Wish(study.name, study.contract, permit, dataset)


def _choose(settings: SiteSettings, name: str | None) -> Dataset:
    names = ", ".join(dataset.name for dataset in settings.datasets)
    if name is None and len(settings.datasets) == 1:
        return settings.datasets[0]
    if name is None:
        raise UsageError("dataset-required", f"this site has {names}", "Add: --dataset NAME")
    found = settings.dataset(name)
    if found is None:
        raise UsageError("dataset-unknown", f"no dataset '{name}' here", f"There is: {names}.")
    return found


def _broken_images(root: Path, cells: Cells) -> Iterator[Violation]:
    """Read every image once, as training would."""
    from larrey_client.data.images import read_image
    from larrey_client.data.violation import Violation, band

    image = cells.contract.image
    if image is None:
        return
    paths, digests = (cells.texts(name).to_pylist() for name in (image.path, image.digest))
    faults: Counter[tuple[str, str]] = Counter()
    for path, digest in zip(paths, digests, strict=True):
        try:
            read_image(root, path, digest, image)
        except DataError as error:
            faults[error.code, error.message] += 1
    for (code, message), count in faults.items():
        yield Violation(code, "", f"{band(count)} rows: {message}")


def _report(cells: Cells, violations: list[Violation], excluded: int) -> Json:
    from larrey_client.data.checks import RULES
    from larrey_client.data.violation import band

    contract, found = cells.contract, [violation.rule for violation in violations]
    rules = list(dict.fromkeys(["column-missing", "data-empty", *RULES, *found]))
    counts = {"rows": band(cells.rows), "excluded": band(excluded)}
    if cells.has(contract.unit.column):
        counts["units"] = band(len(cells.units.ids))
    if cells.has(*contract.label.columns):
        for group in cells.labels.groups:
            counts[f"{group.name}_rows"] = band(int(group.rows.sum()))
    return {
        "is_met": not violations,
        "counts": counts,
        "rules": [
            {"rule": rule, "failures": [str(v) for v in violations if v.rule == rule]}
            for rule in rules
        ],
    }


def _is_there(dataset: Dataset, state: Path) -> bool:
    try:
        return rows_of(dataset, state).is_file()
    except DataError:
        return False


@contextlib.contextmanager
def _families(state: Path) -> Iterator[dict[str, str]]:
    """Give the family of every registered dataset; empty where no node ever ran."""
    try:
        with closing(open_readonly(state)) as connection:
            rows = connection.execute("SELECT dataset, family FROM families ORDER BY seq")
            yield dict(rows.fetchall())
    except (FileError, sqlite3.OperationalError):
        yield {}


def _results(state: Path) -> dict[str, Json]:
    try:
        kept = json.loads((state / _RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a convenience: a lost or broken file is checked again
    return kept if isinstance(kept, dict) else {}


def _keep(state: Path, dataset: str, contract: str, report: Json, now: float) -> None:
    kept = _results(state)
    failed = [entry["rule"] for entry in report["rules"] if entry["failures"]]
    kept.setdefault(dataset, {})[contract] = {"at": now, "failed": failed}
    descriptor, draft = tempfile.mkstemp(dir=state)  # mode 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(kept, file)
    Path(draft).replace(state / _RESULTS)
