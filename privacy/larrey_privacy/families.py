"""Cohort families: which datasets hold the same patients and so share one budget. Pure.

A budget belongs to (site, cohort family, unit), not to a dataset's name: a file that was copied,
renamed or extracted again holds the same patients. Patients are compared as 16-byte hashes keyed by
a secret of the site; a *set* is their sorted, distinct concatenation. Sets never leave the site.
Any patient in common is an overlap: no threshold would be a promise about the patients below it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from larrey_protocol.errors import IntegrityError, Refusal

__all__ = ["HASH_BYTES", "Placement", "overlap", "place", "require_own", "require_set", "union"]

HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a dataset belongs: in the family it overlaps with, else in a new one."""

    family: str  # empty for a new family
    shared: int = 0  # patients in common with the family

    @property
    def is_new(self) -> bool:
        """Return whether no family here has any of the patients."""
        return not self.family


def require_set(data: bytes) -> int:
    """Return how many patients a set has.

    Raises:
        IntegrityError: ``patients-malformed`` unless the hashes are whole, sorted and distinct.
    """
    hashes = list(_hashes(data))
    if len(data) % HASH_BYTES or any(a >= b for a, b in itertools.pairwise(hashes)):
        raise IntegrityError(
            "patients-malformed", "expected sorted, distinct patient hashes of 16 bytes each"
        )
    return len(hashes)


def overlap(a: bytes, b: bytes) -> int:
    """Return how many patients two sets have in common."""
    small, large = sorted((a, b), key=len)
    known = frozenset(_hashes(small))
    return sum(patient in known for patient in _hashes(large))


def place(existing: Mapping[str, bytes], new: bytes) -> Placement:
    """Return where a dataset belongs, given the families' patients.

    Raises:
        Refusal: ``families-bridged`` where it has patients of several families.
    """
    shared = {family: overlap(patients, new) for family, patients in existing.items()}
    joined = {family: count for family, count in shared.items() if count}
    if len(joined) > 1:
        raise _bridged(joined)
    return next((Placement(family, count) for family, count in joined.items()), Placement(""))


def require_own(family: str, existing: Mapping[str, bytes], new: bytes) -> None:
    """Return if a family's dataset, read again, has nobody new who is of another family.

    What a signed split left in two families stays there.

    Raises:
        Refusal: ``families-bridged``.
    """
    known = frozenset(_hashes(existing.get(family, b"")))
    fresh = b"".join(sorted(frozenset(_hashes(new)) - known))
    shared = {name: overlap(set_, fresh) for name, set_ in existing.items() if name != family}
    bridged = {name: count for name, count in shared.items() if count}
    if bridged:
        raise _bridged({family: len(known), **bridged})


def union(*sets: bytes) -> bytes:
    """Return everybody who is in any of the sets."""
    return b"".join(sorted({patient for set_ in sets for patient in _hashes(set_)}))


def _bridged(shared: Mapping[str, int]) -> Refusal:
    return Refusal(
        "families-bridged",
        f"the data hold patients of several cohort families: {', '.join(sorted(shared))}.",
        "Leave out the patients of all families but one, and read the data again.",
    )


def _hashes(data: bytes) -> Iterator[bytes]:
    return (data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))
