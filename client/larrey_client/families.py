"""Which cohort family a dataset belongs to, on record at this site.

The patients of each registered dataset lie in ``families/`` as one file of keyed hashes, named by
its content and readable by the node only; a family's patients are those of all its datasets, ever.
A file is on the disk before the record that names it, so that a kill leaves at most a spare file. A
dataset that nobody registered is a family of its own name. Rules: `larrey_privacy.families`; that
the table says what was signed: `larrey_client.family_history`.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Collection, Iterable
from pathlib import Path

from larrey_client.family_history import History, file_of, history, patients_digest
from larrey_client.settings import Dataset
from larrey_client.store import SiteStore
from larrey_privacy.families import place, require_own, require_set, union
from larrey_privacy.filter import make_filter
from larrey_protocol.decisions import Registration
from larrey_protocol.errors import Refusal
from larrey_protocol.people import Person, require_right
from larrey_protocol.signed import Signed, open_signed

__all__ = [
    "families_on_record",
    "family_of",
    "is_registered",
    "move",
    "patients_digest",
    "refresh",
    "register",
    "require_signed",
    "unit_text",
]


def family_of(store: SiteStore, dataset: str) -> str:
    """Return the family whose budget the dataset uses: the ledger's name for it."""
    with store.reading() as records:
        return families_on_record(records.connection).get(dataset, dataset)


def families_on_record(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the family of every registered dataset, from any connection to the site's database."""
    rows = connection.execute("SELECT dataset, family FROM families ORDER BY seq")
    return {str(dataset): str(family) for dataset, family in rows.fetchall()}


def is_registered(store: SiteStore, dataset: str) -> bool:
    """Return whether the dataset's patients were compared with those of every other."""
    with store.reading() as records:
        return dataset in families_on_record(records.connection)


def unit_text(column: str) -> str:
    """Return the unit of a registered budget, in the words of `larrey_client.cost.unit_of`."""
    return f"patient (a value of {column})"


def require_signed(store: SiteStore, officers: Collection[str]) -> None:
    """Return if every dataset is in the family where an officer's signature put it.

    Raises:
        IntegrityError: ``families-altered`` or ``families-damaged``.
    """
    with store.reading() as records:
        history(records, store.folder, officers)


def register(
    store: SiteStore,
    dataset: Dataset,
    patients: bytes,
    signed: Signed,
    people: Iterable[Person],
    *,
    site: str,
) -> str:
    """Place a dataset by its patients, fix or join a budget; return the family.

    Args:
        store: of the running node, which nobody else writes.
        dataset: as site.toml declares it.
        patients: sorted, distinct keyed hashes (`larrey_privacy.families`).
        signed: the officer's Registration.
        people: of this site, with their public keys.
        site: this site's name.

    Raises:
        Refusal: ``families-bridged``; ``unit-differs`` where the family counts other units;
            ``registration-differs`` where what was signed is not what is here;
            ``already-registered``; ``person-unknown`` or ``role-not-allowed``.
        IntegrityError: ``patients-malformed``, ``families-altered``, ``families-damaged`` or a
            signature's code.
    """
    person = require_right(people, signed.signer, "register")
    document = open_signed(signed, Registration, signed.signer)
    require_set(patients)
    here = _described(dataset, patients, document, (site, person.name))
    if document != here:
        raise Refusal(
            "registration-differs",
            f"what was signed about '{document.dataset}' is not what site.toml and its rows say",
            f"Run again: larrey-site data add {dataset.name}",
        )
    with store.transaction():
        if is_registered(store, dataset.name):
            raise Refusal(
                "already-registered",
                f"'{dataset.name}' has its place in a family",
                "See it: larrey-site data list",
            )
        family = _place(store, dataset.name, patients, document.unit)
        if store.ledger.account(family) is None:
            budget = make_filter(document.epsilon, document.delta)
            store.ledger.register(family, budget, unit_text(document.unit), f"{document.at:.3f}")
        store.add_document(signed, subject=dataset.name)
        _record(store, dataset.name, family, patients, signed.digest)
        store.audit("dataset-registered", document.person, subject=signed.digest)
    return family


def refresh(store: SiteStore, dataset: str, patients: bytes) -> None:
    """Add the patients that a registered dataset has gained; nobody leaves a family.

    Raises:
        Refusal: ``families-bridged`` where a new patient is of another family.
        IntegrityError: ``patients-malformed``, ``families-altered`` or ``families-damaged``.
    """
    require_set(patients)
    if not is_registered(store, dataset):
        return
    with store.transaction():
        here = _history(store)
        family, known = here.families[dataset], here.sets[dataset]
        grown = union(known, patients)
        if grown == known:
            return
        require_own(family, here.by_family(), patients)
        _record(store, dataset, family, grown, "")
        store.audit("family-grown", "policy", subject=patients_digest(grown))


def move(store: SiteStore, dataset: str, into: str, document: str) -> str:
    """Record, in the caller's transaction, that a dataset is a family of its own now.

    Returns the family that it leaves, whose patients are from now on those of its other datasets.

    Raises:
        Refusal: ``dataset-unregistered`` for one that was never placed.
        IntegrityError: ``families-altered`` or ``families-damaged``.
    """
    if not is_registered(store, dataset):
        raise Refusal(
            "dataset-unregistered",
            f"'{dataset}' was never placed in a family",
            f"Run: larrey-site data add {dataset}",
        )
    here = _history(store, pending=document)
    _record(store, dataset, into, here.sets[dataset], document)
    return here.families[dataset]


def _place(store: SiteStore, dataset: str, patients: bytes, unit: str) -> str:
    """Return the family that the patients belong to."""
    families = _history(store).by_family()
    placed = place(families, patients)
    family = placed.family or dataset
    own, account = store.ledger.account(dataset), store.ledger.account(family)
    if own is not None and family != dataset:
        raise Refusal(
            "families-bridged",
            f"'{dataset}' has a budget of its own and patients of family '{family}'",
            "Use another dataset name; what was spent under this one stays spent.",
        )
    if placed.is_new and dataset in families:
        raise Refusal(
            "already-registered",
            f"another family is called '{dataset}'",
            "Rename the dataset in site.toml.",
        )
    if account is not None and account.unit != unit_text(unit):
        raise Refusal(
            "unit-differs",
            f"the budget of '{family}' protects one {account.unit}, not one {unit_text(unit)}",
            "Name the same patient column in both datasets.",
        )
    return family


def _described(
    dataset: Dataset, patients: bytes, document: Registration, by: tuple[str, str]
) -> Registration:
    """Return the registration as it would be signed from what is here."""
    return Registration(
        site=by[0],
        dataset=dataset.name,
        unit=dataset.unit or document.unit,
        patients=patients_digest(patients),
        epsilon=dataset.epsilon,
        delta=dataset.delta,
        person=by[1],
        at=document.at,
    )


def _history(store: SiteStore, *, pending: str = "") -> History:
    """Return where the datasets stand; who signed for it was checked when the state was opened."""
    with store.reading() as records:
        return history(records, store.folder, pending=pending)


def _record(store: SiteStore, dataset: str, family: str, patients: bytes, document: str) -> None:
    """Write the dataset's patients, then the row that names them, in the caller's transaction."""
    digest = patients_digest(patients)
    _write(store.folder, digest, patients)
    store.records.connection.execute(
        "INSERT INTO families SELECT coalesce(max(seq), 0) + 1, ?, ?, ?, ? FROM families",
        (dataset, family, digest, document),
    )


def _write(state: Path, digest: str, patients: bytes) -> None:
    path = file_of(state, digest)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.parent / f".{secrets.token_hex(8)}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(patients)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
