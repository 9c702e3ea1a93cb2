"""How a site's rows are read, beside the source and the contract. Sensitive; never logged."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["PLAIN", "Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader must know.

    Attributes:
        secret: the site's; keys the split, the hashes of patients and fingerprints of files.
        excluded: hashes (`identity.patient_hash`) of the patients whose rows are dropped.
        root: the folder of files to which rows point; None for the one with the rows.
        part: of the contract's split.
    """

    secret: bytes = field(default=b"", repr=False)
    excluded: frozenset[bytes] = field(default=frozenset(), repr=False)
    root: Path | None = None
    part: Literal["train", "valid", "test"] = "train"


PLAIN = Reading()  # without secret, without exclusions
