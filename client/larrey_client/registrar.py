"""How a running node places a dataset in a cohort family: its patients are read, the officer signs.

Two steps, because the signature covers the patients and the officer's key is not at the node: the
first reads them and says what to sign, the second reads them again and compares. Patients' hashes
stay in the state folder; what the door says of them is their digest and how many there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from larrey_client.dossier import read_dossier
from larrey_client.extract.snapshots import rows_of
from larrey_client.extract.taking import ready_rows
from larrey_client.families import is_registered, patients_digest, refresh, register
from larrey_client.local import Handler
from larrey_client.opposition_trail import note_objections
from larrey_client.settings import Dataset
from larrey_privacy.families import HASH_BYTES
from larrey_protocol.errors import IntegrityError, UsageError
from larrey_protocol.signed import Signed

if TYPE_CHECKING:
    from larrey_client.node import Node

__all__ = ["registrar_handlers", "rescan", "scan"]

Json = dict[str, Any]  # Any: JSON values are recursive


def registrar_handlers(node: Node) -> Mapping[str, Handler]:
    """Return what the local door can be asked about families and opposition."""
    return {
        "opposition noted": lambda request, actor: note_objections(
            node.store, str(request["kind"]), int(request["count"]), actor
        ),
        "data scan": lambda request, _: _offered(node, str(request["dataset"])),
        "data add": lambda request, _: _add(node, str(request["signed"])),
    }


def scan(node: Node, dataset: Dataset) -> bytes:
    """Return the sorted keyed hashes of the dataset's patients; the caller has the trainer's turn.

    Raises:
        UsageError: ``unit-required`` where site.toml does not name the patient's column.
        DataError: the rows cannot be read.
    """
    if dataset.unit is None:
        raise UsageError(
            "unit-required",
            f"site.toml does not say which column of '{dataset.name}' tells patients apart",
            'Add unit = "…" to its [[datasets]] entry.',
        )
    rows = ready_rows(node.settings, dataset)
    return node.trainer.scan(rows, dataset.unit, node.store.secret())


def rescan(node: Node, dataset: Dataset) -> None:
    """Add patients that a registered dataset gained; the caller has the trainer's turn.

    Rows that did not change since they were read last are not read again.

    Raises:
        Refusal: ``families-bridged`` where a new patient is of another family.
        DataError: the rows cannot be read.
    """
    if not is_registered(node.store, dataset.name):
        return
    try:
        facts = rows_of(dataset, node.settings.site.state).stat()
    except OSError:
        return  # whoever loads the rows says that there are none
    version = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if node.scanned.get(dataset.name) != version:
        refresh(node.store, dataset.name, scan(node, dataset))
        node.scanned[dataset.name] = version


def _offered(node: Node, name: str) -> Json:
    dataset = _dataset(node, name)
    with node.trainer_turn:
        patients = scan(node, dataset)
    return {
        "site": node.site,
        "dataset": dataset.name,
        "unit": dataset.unit,
        "patients": patients_digest(patients),
        "epsilon": dataset.epsilon,
        "delta": dataset.delta,
        "count": len(patients) // HASH_BYTES,
    }


def _add(node: Node, document: str) -> Json:
    signed = Signed.from_bytes(document.encode())
    try:
        name = str(json.loads(signed.document)["dataset"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("malformed-document", "expected a signed registration") from error
    dataset = _dataset(node, name)
    with node.trainer_turn:
        patients = scan(node, dataset)
    with node.store.reading() as records:
        dossier = read_dossier(records, node.settings.consortium.key)
    people = dossier.entitled(node.settings.people)
    family = register(node.store, dataset, patients, signed, people, site=node.site)
    return {"dataset": name, "family": family, "is_shared": family != name}


def _dataset(node: Node, name: str) -> Dataset:
    found = node.settings.dataset(name)
    if found is None:
        names = ", ".join(dataset.name for dataset in node.settings.datasets)
        raise UsageError("dataset-unknown", f"no dataset '{name}' here", f"There is: {names}.")
    return found
