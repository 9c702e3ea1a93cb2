"""The rows: readable, protected from writes, and fit for the studies that were checked.

The rows are opened, never read: what is told of contracts is the outcome of the last
`larrey-site data check`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from larrey_client.data.opposition import entries
from larrey_client.datasets import list_datasets
from larrey_client.settings import SiteSettings
from larrey_client.sources_settings import FileSource, ImageSource, SqlSource
from larrey_protocol.checkup import Check, Outcome, Skip, Text, joined
from larrey_protocol.errors import LarreyError

__all__ = ["CHECKS", "Facts", "Place", "look"]

_DAY_S = 86400.0
_STALE_DAYS = 180.0


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder with rows that a setting names.

    Attributes:
        setting: key in ``site.toml``, e.g. ``datasets.heart.path``.
        path: as it is used.
        trouble: why it cannot be read, "" if it can.
        is_writable: this account could change it.
        is_empty: a file without a byte.
    """

    setting: str
    path: str
    trouble: str = ""
    is_writable: bool = False
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured.

    Attributes:
        places: files and folders with rows.
        misses: dataset and contract of each last check that failed, with the rules' names.
        has_checks: some dataset was checked against a contract.
        objections_days: since the opposition list last changed; None where it has no entry.
    """

    places: tuple[Place, ...]
    misses: tuple[str, ...] = ()
    has_checks: bool = False
    objections_days: float | None = None


def look(settings: SiteSettings, now: float) -> Facts:
    """Measure; ``now`` in seconds since 1970."""
    checks = [
        (f"{dataset['name']}: {contract}: {', '.join(result['failed'])}", bool(result["failed"]))
        for dataset in list_datasets(settings)
        for contract, result in sorted(dataset["checks"].items())
    ]
    return Facts(
        places=tuple(_places(settings)),
        misses=tuple(text for text, is_missed in checks if is_missed),
        has_checks=bool(checks),
        objections_days=_objections_days(settings.site.state, now),
    )


def _objections_days(state: Path, now: float) -> float | None:
    try:
        newest = max((one.recorded_at for one in entries(state)), default=None)
    except LarreyError:  # a check of its own
        return None
    return None if newest is None else (now - newest) / _DAY_S


def _places(settings: SiteSettings) -> Iterator[Place]:
    for dataset in settings.datasets:
        name = f"datasets.{dataset.name}"
        match dataset.origin:
            case FileSource(path=path):
                yield _read(f"{name}.{'path' if dataset.path else 'source.path'}", path)
            case ImageSource(manifest=manifest, root=root):
                yield _read(f"{name}.source.manifest", manifest)
                yield _read(f"{name}.source.root", root)
            case SqlSource(dsn_file=dsn, query_file=query):
                yield _read(f"{name}.source.dsn_file", dsn)
                yield _read(f"{name}.source.query_file", query)


def _read(setting: str, path: Path) -> Place:
    is_empty = False
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            with path.open("rb") as file:
                is_empty = not file.read(1)
    except OSError as error:
        return Place(setting, str(path), error.strerror or "cannot be read")
    return Place(setting, str(path), "", os.access(path, os.W_OK), is_empty)


_NONE = Skip(Text("site.toml names no dataset", "site.toml ne nomme aucun jeu de données"))


def _unreadable(facts: Facts) -> Outcome:
    if not facts.places:
        return _NONE
    lost = [one for one in facts.places if one.trouble]
    return joined(
        Text(
            f"{one.setting}: {one.path}: {one.trouble}",
            f"{one.setting} : {one.path} : {one.trouble}",
        )
        for one in lost
    )


def _empty(facts: Facts) -> Outcome:
    if not facts.places:
        return _NONE
    return joined(Text(one.setting, one.setting) for one in facts.places if one.is_empty)


def _writable(facts: Facts) -> Outcome:
    if not facts.places:
        return _NONE
    return joined(Text(one.setting, one.setting) for one in facts.places if one.is_writable)


def _misses(facts: Facts) -> Outcome:
    if not facts.has_checks:
        return Skip(Text("no dataset was checked yet", "aucun jeu de données encore contrôlé"))
    return joined(Text(one, one) for one in facts.misses)


def _stale(facts: Facts) -> Outcome:
    if facts.objections_days is None:
        return Skip(Text("the list has no entry", "la liste est vide"))
    days = facts.objections_days
    if days <= _STALE_DAYS:
        return None
    return Text(f"last changed {days:.0f} days ago", f"inchangée depuis {days:.0f} jours")


CHECKS: tuple[Check, ...] = (
    Check(
        "data-unreadable", "data", "failed",
        Text("the rows can be read", "les données sont lisibles"),
        Text("Correct the path, or let the node's account read it.",
             "Corrigez le chemin, ou donnez au compte du nœud le droit de lecture."),
        "a dataset whose file is not there",
        _unreadable,
    ),
    Check(
        "data-empty", "data", "failed",
        Text("no file with rows is empty", "aucun fichier de données n'est vide"),
        Text("Write the extract again.", "Refaites l'extraction."),
        "a dataset of no bytes",
        _empty,
    ),
    Check(
        "data-writable", "data", "warning",
        Text("the node cannot change the rows", "le nœud ne peut pas modifier les données"),
        Text("Mount the data read-only, or take the write permission away.",
             "Montez les données en lecture seule, ou retirez le droit d'écriture."),
        "a dataset that the node's account may write",
        _writable,
    ),
    Check(
        "data-misses-contract", "data", "failed",
        Text("the rows meet the contracts they were checked against",
             "les données respectent les contrats contrôlés"),
        Text("Run larrey-site data check for each rule, and correct the extract.",
             "Lancez larrey-site data check pour le détail, et corrigez l'extraction."),
        "rows checked against a contract that they miss",
        _misses,
    ),
    Check(
        "opposition-stale", "data", "warning",
        Text(f"the opposition list changed within {_STALE_DAYS:.0f} days",
             f"la liste d'opposition a changé depuis moins de {_STALE_DAYS:.0f} jours"),
        Text("Ask the data protection officer for newer objections.",
             "Demandez au délégué à la protection des données les oppositions récentes."),
        "a list whose last entry is 200 days old",
        _stale,
    ),
)  # fmt: skip
