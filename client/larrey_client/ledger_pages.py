"""`larrey-site ledger`: each family's budget, by study and round; as JSON, as words, as a table.

Shares are of the family's filter, which is what decides; PLD epsilon stands beside it and is never
a part of it. Where epsilon is named, so are its unit, neighbours and delta.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from larrey_client.families import families_on_record
from larrey_client.records import SiteRecords
from larrey_client.settings import Dataset, SiteSettings
from larrey_privacy.ledger import Account, Hold, Reservation
from larrey_privacy.ledger_store import Ledger
from larrey_privacy.ledger_view import receipt_flags
from larrey_protocol.canonical import short
from larrey_protocol.study import Head

__all__ = ["explain_ledger", "ledger_table", "ledger_view"]

Json = dict[str, Any]  # Any: JSON values are recursive
_FLAGS = {
    "unbounded": "some work here has no epsilon at all",
    "family-reset": "its budget was split or renewed {resets} times by the officer",
    "adopted": "part of its history was lost; {carried_share:.1%} were adopted as used",
}
_HOW = "shares are of the filter that decides; epsilon is the tighter PLD figure, no share of it"
_COLUMNS = ("family", "study", "name", "version", "round", "entry", "state", "share")


def ledger_view(connection: sqlite3.Connection, settings: SiteSettings) -> list[Json]:
    """Return every family's budget: what is used, held and free, by which study and round.

    A family's ``dataset`` is its name, ``datasets`` are those of site.toml that share it.
    """
    ledger, records = Ledger.open(connection), SiteRecords(connection)
    heads = {known.study.digest: known.study.file.study for known in records.known()}
    placed = families_on_record(connection)
    shared: dict[str, list[Dataset]] = {family: [] for family in ledger.datasets()}
    for dataset in settings.datasets:
        shared.setdefault(placed.get(dataset.name, dataset.name), []).append(dataset)
    views = []
    for family, datasets in shared.items():
        account = ledger.account(family)
        if account is None:
            view = _untouched(family, datasets[0])
        else:
            view = asdict(ledger.view(family)) | {"flags": list(receipt_flags(account))}
            _add_rounds(view, account, heads)
        views.append(view | {"datasets": [dataset.name for dataset in datasets]})
    return views


def ledger_table(views: Sequence[Json]) -> str:
    """Return the same as CSV: one line a round, then what is held, carried and free.

    The shares of a family add up to 1.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for view in views:
        table.writerows(_rows(view))
    return text.getvalue()


def explain_ledger(views: Sequence[Json]) -> str:
    """Return each family's budget and who uses it, in plain words."""
    return "\n\n".join(_budget(view) for view in views)


def _add_rounds(view: Json, account: Account, heads: Mapping[str, Head]) -> None:
    """Add to each study its name, version, rounds, and how many more its family's budget allows."""
    for study in view["studies"]:
        hold = account.holds[study["study"]]
        head = heads.get(study["study"])
        study["name"], study["version"] = (head.name, head.version) if head else ("", None)
        study["rounds_more"] = _rounds_more(account, hold)
        study["rounds"] = [_round(one, account) for one in hold.reservations]


def _rounds_more(account: Account, hold: Hold) -> int | None:
    """Return how many further rounds like a running study's the free budget would hold."""
    if hold.is_closed or not hold.units_per_round:
        return None
    return account.free_units // hold.units_per_round


def _round(one: Reservation, account: Account) -> Json:
    state = "delivered" if one.is_settled else "answered" if one.output_digest else "reserved"
    return {
        "round": one.round,
        "entry": one.entry.seq,
        "at": one.entry.at,
        "state": state,
        "share": one.units / account.capacity_units,
    }


def _untouched(family: str, dataset: Dataset) -> Json:
    return {
        "dataset": family,
        "unit": "patient",
        "epsilon": dataset.epsilon,
        "delta": dataset.delta,
        "used_share": 0.0,
        "held_share": 0.0,
        "free_share": 1.0,
        "carried_share": 0.0,
        "epsilon_spent": 0.0,
        "has_unbounded": False,
        "resets": 0,
        "is_adopted": False,
        "flags": [],
        "studies": [],
    }


def _rows(view: Json) -> Iterator[tuple[Any, ...]]:  # Any: cells
    family = view["dataset"]
    for study in view["studies"]:
        who = (family, study["study"], study["name"], study["version"])
        for one in study["rounds"]:
            yield (*who, one["round"], one["entry"], one["state"], one["share"])
        yield (*who, "", "", "held", study["held_share"])
    yield (family, "", "", "", "", "", "carried", view["carried_share"])
    yield (family, "", "", "", "", "", "free", view["free_share"])


def _budget(view: Json) -> str:
    others = [name for name in view["datasets"] if name != view["dataset"]]
    shared = f", shared by {', '.join(view['datasets'])}" if others else ""
    head = (
        f"{view['dataset']}: budget epsilon {view['epsilon']:g} at delta {view['delta']:g} per"
        f" {view['unit']}, add/remove, for all work ever{shared}\n"
        f"  used {view['used_share']:.1%}, held {view['held_share']:.1%},"
        f" free {view['free_share']:.1%}; all work so far together: epsilon at most"
        f" {view['epsilon_spent']:.3g}\n  {_HOW}"
    )
    flags = [f"\n  {_FLAGS[flag].format_map(view)}" for flag in view["flags"]]
    return head + "".join(flags) + "".join(f"\n  {_study(study)}" for study in view["studies"])


def _study(study: Json) -> str:
    version = f" version {study['version']}" if study["version"] else ""
    name = f"{study['name']}{version} ({short(study['study'])})".strip()
    rounds = f"{study['rounds_used']} of {study['rounds_total']} rounds"
    if study["is_unbounded"]:
        return f"{name}: {rounds}, without differential privacy"
    ended = ", ended" if study["is_closed"] else f", {study['rounds_left']} left"
    more = study["rounds_more"]
    offer = "" if more is None else f"; the free budget allows {more} more such rounds"
    return (
        f"{name}: {rounds}{ended}, {study['used_share']:.1%} used, {study['held_share']:.1%} held;"
        f" PLD epsilon {study['epsilon_spent']:.3g} of {study['epsilon_approved']:.3g}{offer}"
    )
