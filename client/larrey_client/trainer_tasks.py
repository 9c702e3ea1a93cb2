"""What a trainer is asked for and what it finds, as plain values; no numpy, no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Loaded", "PersonalTask", "TrainTask"]


@dataclass(frozen=True, slots=True)
class TrainTask:
    """Which training is asked for."""

    study: str  # digest
    round: int
    phase: str
    site: str
    sequence: int = 0  # of the reservation in the ledger; goes into the keys of the noise


@dataclass(frozen=True, slots=True)
class PersonalTask:
    """Which model of the site's own is asked for (`larrey_client.personal`)."""

    study: str  # digest
    site: str
    lambda_: float
    steps: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the trainer found; exact and private, it stays at the site.

    Attributes:
        units: patients (or other units) that will be trained on.
        content: "sha256:…" of all rows read; leaves only inside a commitment keyed by the site.
        excluded: patients whose rows were dropped.
    """

    units: int
    content: str
    excluded: int = 0
