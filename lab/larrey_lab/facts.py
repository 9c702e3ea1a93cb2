"""What a demonstration run found: one frozen document that page, JSON and terminal share.

Filled by the demo from what it observed; holds public data's figures only. Every epsilon here is
per patient at one hospital, neighbours by adding or removing that patient, at ``delta``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from larrey_lab.evaluation import Interval
from larrey_lab.utility import Utility

__all__ = ["DemoFacts", "HospitalFacts", "RefusalFacts", "RoundFacts", "RunFile"]


@dataclass(frozen=True, slots=True)
class HospitalFacts:
    """One hospital's side.

    Attributes:
        name: in the roster; title: as people know it.
        patients: public bound of its cohort.
        epsilon_by_round: cumulative epsilon of this study after each round, by PLD.
        budget: epsilon that its dataset may spend over all studies, by the ledger's filter.
        used_share: of that filter, spent by all studies so far, in [0, 1].
        held_share: of that filter, set aside for spare rounds and not spent, in [0, 1].
        ledger_entries, audit_records: verified by hash chain; is_verified: both chains held.
    """

    name: str
    title: str
    patients: int
    epsilon_by_round: tuple[float, ...]
    budget: float
    used_share: float
    held_share: float
    ledger_entries: int
    audit_records: int
    is_verified: bool


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """One round of the real run.

    Attributes:
        number: from 1; seconds: from open to close.
        auc: of the new global model on the pooled held-out patients.
        sites: by site: ``contributed``, ``late``, ``absent`` or a refusal's code.
    """

    number: int
    seconds: float
    auc: float
    sites: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RefusalFacts:
    """The study that a hospital refused on purpose.

    Attributes:
        study, site: names; code: stable code of the refusal; sentence: the site's own words.
        asked: what the study wanted; allowed: what the site's policy says.
        epsilon_spent: what it cost the dataset.
    """

    study: str
    site: str
    code: str
    sentence: str
    asked: str
    allowed: str
    epsilon_spent: float


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file the run left, relative to its folder, and what it is."""

    path: str
    what: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class DemoFacts:
    """Everything the report says.

    Attributes:
        digest: of study and contract, as approved; outcome: COMPLETE, PARTIAL or FAILED.
        finished_at: ISO 8601.
        unit, relation, accountant: in words, e.g. "patient at one hospital".
        epsilon: claimed and approved, over all rounds and spare rounds, at ``delta``.
        mechanism: in words, with its numbers.
        run: AUC of the released model on this run's held-out patients, interval over patients.
        run_patients: how many those are.
        seconds_to_first_round, seconds_total: from the command's start.
    """

    study: str
    version: int
    title: str
    question: str
    digest: str
    outcome: str
    finished_at: str
    unit: str
    relation: str
    accountant: str
    epsilon: float
    delta: float
    mechanism: str
    hospitals: tuple[HospitalFacts, ...]
    rounds: tuple[RoundFacts, ...]
    run: Interval
    run_patients: int
    utility: Utility
    refusal: RefusalFacts
    files: tuple[RunFile, ...]
    seconds_to_first_round: float
    seconds_total: float

    def as_json(self) -> dict[str, Any]:  # Any: JSON values are recursive
        """Return the document as JSON values; what could not be estimated is null."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:  # Any: JSON values are recursive
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
