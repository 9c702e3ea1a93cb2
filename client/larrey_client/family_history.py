"""Where every dataset was placed, made again from what was signed; reads only.

Each row of the table ``families`` must follow from the rows before it: a first one from the
officer's Registration and the patients whom it names by digest, a move from the officer's order,
and a row without a document adds patients and moves nothing. So a row that was edited, added or
taken out by whoever can write the file is found, and no dataset gets another family's budget.
Rules of placing: `larrey_privacy.families`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from larrey_client.records import SiteRecords
from larrey_privacy.families import place, require_own, union
from larrey_protocol.decisions import Registration, SiteOrder
from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.signed import Signed, open_signed

__all__ = ["FOLDER", "History", "file_of", "history", "patients_digest"]

FOLDER = "families"


@dataclass(frozen=True, slots=True)
class History:
    """Where the datasets stand.

    Attributes:
        families: of each registered dataset.
        sets: its patients, everybody who ever was one.
    """

    families: dict[str, str] = field(default_factory=dict)
    sets: dict[str, bytes] = field(default_factory=dict)

    def by_family(self) -> dict[str, bytes]:
        """Return the patients of every family: those of all its datasets."""
        found: dict[str, bytes] = {}
        for dataset, family in self.families.items():
            found[family] = union(found.get(family, b""), self.sets[dataset])
        return found


def history(
    records: SiteRecords,
    state: Path,
    officers: Collection[str] | None = None,
    *,
    pending: str = "",
) -> History:
    """Return where the datasets stand, each row justified by what was signed.

    Args:
        records: of the site's database.
        state: folder in which ``families/`` lies.
        officers: public keys whose signature places datasets; None where that was checked before.
        pending: digest of an order that is kept and whose row is written next.

    Raises:
        IntegrityError: ``families-altered``, with the row's number; ``families-damaged``.
    """
    kept = [*records.documents("registration"), *records.documents("siteorder")]
    signed = {one.digest: one for one in kept if officers is None or one.signer in officers}
    rows = records.connection.execute(
        "SELECT seq, dataset, family, patients, document FROM families ORDER BY seq"
    ).fetchall()
    found, missing = History(), {digest for digest, one in signed.items() if _makes_row(one)}
    for number, (seq, dataset, family, digest, document) in enumerate(rows, 1):
        patients = _read(file_of(state, digest), digest)
        if (seq, family) != (number, _placed(found, dataset, patients, signed.get(document))):
            raise _altered(f"row {number} of the table of cohort families does not follow")
        found.families[dataset], found.sets[dataset] = family, patients
        missing.discard(document)
    if missing - {pending}:
        raise _altered("the table of cohort families lacks what an officer signed")
    return found


def file_of(state: Path, digest: str) -> Path:
    """Return where the patients of that digest lie."""
    return state / FOLDER / f"{digest.removeprefix('sha256:')}.hashes"


def patients_digest(patients: bytes) -> str:
    """Return what a registration says of the patients: the digest of their sorted hashes."""
    return "sha256:" + hashlib.sha256(patients).hexdigest()


def _placed(before: History, dataset: str, patients: bytes, signed: Signed | None) -> str:
    """Return the family that a row must name, empty where nothing justifies the row."""
    known, family = before.sets.get(dataset), before.families.get(dataset, "")
    try:
        if known is None:
            return _registered(before, dataset, patients, signed)
        if signed is not None:
            parent, _, into = open_signed(signed, SiteOrder, signed.signer).subject.partition("/")
            return into if (parent, patients) == (dataset, known) else ""
        require_own(family, before.by_family(), patients)
    except (Refusal, IntegrityError):
        return ""
    return family if union(known, patients) == patients else ""


def _registered(before: History, dataset: str, patients: bytes, signed: Signed | None) -> str:
    if signed is None:
        return ""
    document = open_signed(signed, Registration, signed.signer)
    if (document.dataset, document.patients) != (dataset, patients_digest(patients)):
        return ""
    return place(before.by_family(), patients).family or dataset


def _makes_row(signed: Signed) -> bool:
    """Return whether a row names the document: a registration, or an order that moves a dataset."""
    if signed.kind == "registration":
        return True
    order = open_signed(signed, SiteOrder, signed.signer)
    return order.verb == "split-family" and "/" in order.subject


def _read(path: Path, digest: str) -> bytes:
    patients = path.read_bytes() if path.is_file() else b""
    if patients_digest(patients) != digest:
        raise IntegrityError(
            "families-damaged",
            "a dataset's patient hashes are not those that were registered",
            "Restore the newest copy of the site's state; families cannot be compared without it.",
        )
    return patients


def _altered(what: str) -> IntegrityError:
    return IntegrityError(
        "families-altered",
        f"{what}: which budget a dataset uses is not what was signed",
        "Open an incident; restore the newest verified copy of the site's state.",
    )
