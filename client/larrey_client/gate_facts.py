"""What the gate is told: frozen facts about the node, a study and a request. Values only.

`larrey_client.cases` collects them; `larrey_client.gate` decides over them. A fact without a
default must be found out by the caller: nothing is taken as good because nobody looked.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from larrey_client.approvals import NO_CONSENT, Consent
from larrey_client.orders import Standing
from larrey_client.settings import Policy
from larrey_client.task import Task
from larrey_privacy.ledger import Hold
from larrey_protocol.permit import Permit
from larrey_protocol.roster import Roster
from larrey_protocol.study import Study

__all__ = [
    "ALLOW",
    "NO_STANDING",
    "Allow",
    "Decision",
    "Ground",
    "Refuse",
    "StudyCase",
    "StudyFacts",
    "TaskCase",
    "Warrant",
]


@dataclass(frozen=True, slots=True)
class Allow:
    """The gate is open."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The gate stays shut. The code may leave the site; reason and next step stay."""

    code: str
    reason: str
    next_step: str = ""


NO_STANDING = Standing()
Decision = Allow | Refuse
ALLOW = Allow()


@dataclass(frozen=True, slots=True)
class Ground:
    """What the node stands on, whatever is asked.

    Attributes:
        is_policy_signed: the charter of site.toml is the newest that was signed.
        clock_lag_s: by how much the clock is behind the latest time on record here.
        anchors_code: why the ledger or the trail is behind an anchor, empty if it is not.
        altered: which kept document no longer verifies or is gone, empty if none.
    """

    is_policy_signed: bool
    clock_lag_s: float
    anchors_code: str
    altered: str


@dataclass(frozen=True, slots=True)
class Warrant:
    """What the consortium and the authority vouch for, as this site verified it.

    Attributes:
        signer: key that signed the proposal.
        consortium: key that the site pinned, or its signed successor.
        roster: newest one.
        permit: newest version of the permit that the study names, None if unknown.
        permit_digest: of the signed permit; empty if unknown.
        seats: digest of the study's own seats on the roster.
        is_countersigned: this site's officer signed that version with the authority's document.
        day: today in UTC, by the later of clock and records.
    """

    signer: str
    consortium: str
    roster: Roster
    permit: Permit | None
    permit_digest: str
    seats: str
    is_countersigned: bool
    day: dt.date


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What had to be computed or looked up about a study.

    Attributes:
        epsilon: PLD epsilon of all rounds and spare rounds at the study's delta; -1 without one.
        strategy_code: why the algorithm cannot be run, empty if it can.
        mechanism_code: why the accountant refuses, empty if it does not.
        app_digest: digest of the installed source of the listed app, empty if there is none.
        strategy_reason: ``strategy_code`` in words.
    """

    epsilon: float
    strategy_code: str = ""
    mechanism_code: str = ""
    app_digest: str = ""
    strategy_reason: str = ""


@dataclass(frozen=True, slots=True)
class StudyCase:
    """A study before this site's policy.

    Attributes:
        datasets: those of site.toml.
        dataset: the chosen one; empty, like the four after it, until one is chosen.
        units: patients found in the dataset.
        rounds_free: such rounds that the ledger can still hold.
        unit: the column by which site.toml tells patients apart.
        is_registered: this site's officer placed the dataset in a cohort family.
        warrant: None only on arrival, when policy alone is asked.
        consent: what persons here signed about the study.
        is_superseded: a later version of the study was approved here.
        parent: the version that it amends, None where that is not known here.
    """

    site: str
    policy: Policy
    study: Study
    facts: StudyFacts
    datasets: tuple[str, ...]
    dataset: str = ""
    units: int | None = None
    rounds_free: int | None = None
    unit: str | None = None
    is_registered: bool = False
    warrant: Warrant | None = None
    consent: Consent = NO_CONSENT
    is_superseded: bool = False
    parent: Study | None = None


@dataclass(frozen=True, slots=True)
class TaskCase:
    """A request before what this site approved and spent.

    Attributes:
        study: None where no study of that digest was proposed.
        standing: who launched it, who stopped it.
        hold: the budget kept for it; None where there is none.
        is_answered: its answer is stored and is only sent again.
    """

    task: Task
    seconds_left: float
    ground: Ground
    study: StudyCase | None = None
    standing: Standing = NO_STANDING
    hold: Hold | None = None
    is_answered: bool = False
