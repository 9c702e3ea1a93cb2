"""The values that `larrey_server.rounds` turns over: plan, state, events, actions, tasks.

Times are seconds of one monotonic clock; a restart begins a new clock and says so (`Resumed`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from larrey_protocol.study import Study

__all__ = [
    "Action",
    "Aggregate",
    "Aggregated",
    "AnsweredLate",
    "Cancel",
    "Cell",
    "Commit",
    "Courier",
    "Event",
    "Launched",
    "Metrics",
    "Ordered",
    "Outcome",
    "Plan",
    "Replied",
    "Reply",
    "Resumed",
    "Send",
    "SiteDown",
    "SiteJoined",
    "SiteStopped",
    "SiteUp",
    "SiteWindow",
    "State",
    "Task",
    "TaskKey",
    "Ticked",
    "plan_of",
]

Outcome: TypeAlias = Literal[
    "contributed", "late", "refused", "absent", "halted", "waiting", "excluded"
]
Metrics: TypeAlias = Mapping[str, Mapping[str, float]]  # phase -> name -> mean over sites
Pace: TypeAlias = Mapping[str, tuple[tuple[float, float], ...]]  # phase -> (work, transfer) seconds
Status: TypeAlias = Literal[
    "waiting", "gathering", "open", "closing", "paused", "halted", "ended"
]  # waiting: not launched; gathering: launched, and too few sites are there to open the attempt


@dataclass(frozen=True, slots=True)
class TaskKey:
    """Which request an answer belongs to."""

    study: str
    round: int
    phase: str
    attempt: int
    model: str


@dataclass(frozen=True, slots=True)
class Task:
    """One request to one site."""

    study: str
    round: int
    phase: str
    attempt: int
    model: str  # digest of the model file that the site fetches
    model_bytes: int
    deadline_s: float  # seconds left when it was sent
    peer_head: str  # the coordinator's audit head, "seq:hash"
    applied: int = 0  # the last round whose update of this site was applied; for site state alone

    @property
    def key(self) -> TaskKey:
        """Return the part by which an answer is matched."""
        return TaskKey(self.study, self.round, self.phase, self.attempt, self.model)


class Courier(Protocol):
    """Carries tasks to sites; answers come back through `Conductor.reply`."""

    def send(self, site: str, task: Task) -> None:
        """Queue one task for one site; never block."""

    def cancel(self, site: str, task: Task) -> None:
        """Take a task back if the site has not taken it yet; never block."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fixed before the first round.

    Attributes:
        invited: in roster order, the order of every aggregation.
        deadline_s: the most that one attempt of a round takes; its phases share it evenly.
        required: sites without which no round is applied.
        patience: how many times a site's usual seconds make its own deadline.
        grace_s: how long a round that could close waits for a site whose connection broke.
        arrival_s: the same for sites that were not seen since launch or restart.
    """

    study: str
    invited: tuple[str, ...]
    rounds: int
    spare_rounds: int
    quorum: int
    deadline_s: float
    phases: tuple[str, ...] = ("train",)
    grace_s: float = 2.0
    arrival_s: float = 10.0
    required: tuple[str, ...] = ()
    patience: float = 3.0


def plan_of(study: Study) -> Plan:
    """Return the plan that a study file asks for."""
    return Plan(
        study=study.digest,
        invited=study.file.site_names,
        rounds=study.file.training.rounds,
        spare_rounds=study.file.training.spare_rounds,
        quorum=study.file.rounds.quorum,
        deadline_s=study.file.rounds.deadline_s,
        phases=study.file.training.calls,
        required=study.file.rounds.required,
        patience=study.file.rounds.patience,
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """A site's accepted answer in one phase; ``code`` says why there is no update.

    ``work_s`` and ``transfer_s`` together are the seconds since the site was asked.
    """

    site: str
    phase: str
    update: str = ""  # digest
    code: str = ""
    epsilon: float = -1.0  # so far in this study, as `larrey_protocol.signed.Receipt` says
    nbytes: int = 0
    work_s: float = 0.0
    transfer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cell:
    """What one site did in one attempt of a round."""

    site: str
    round: int
    attempt: int
    outcome: Outcome
    code: str = ""
    epsilon: float = -1.0
    nbytes: int = 0
    update: str = ""
    seconds: float = 0.0  # from the request to the answer that counts, 0 without one


@dataclass(frozen=True, slots=True)
class State:
    """Where a study stands. Mappings and tuples are replaced, never changed.

    Attributes:
        model: digest of the model that the open round starts from, the newest one.
        opened_at: when the present attempt opened.
        away: sites that are not connected, and until when a round that could close waits for them.
        pending: sites that owe an answer in the present phase, in roster order.
        stopped: sites that declined the study as such or were withdrawn, with their code.
        cells: of the closing attempt.
        missed: sites that missed a round that was applied.
        metrics: of the last applied round, by phase and name; empty in a study of train alone.
        stop: what was ordered and not resumed; a pause holds while the open round is finished.
        stop_by: who ordered it, by the roster's name.
        stop_code: why, where the coordinator stopped it on its own.
        stop_on: when, in seconds since 1970.
        order: number of the newest order that was heard.
        pace: what each site took for its last answers, by site and phase.
        overdue: sites that used up all the time that a round may take, and how often in a row.
        last_asked: of these, for which round and when they were asked last.
        excluded: sites that a person left out until further notice, with the reason.
        windows: sites outside their training window, and when it opens.
        asked: when each site got the last request of this attempt.
        extended_s: seconds that persons added to the open attempt.
        is_repeat: whether sites may have stored answers, whose speed says nothing.
        memory: digest of what the strategy keeps after the last applied round, if it keeps any.
        request: digest of what sites fetch in the model's place, empty where it is the model.
        failures: attempts of this round, or since a person's order, that fell below quorum though
            everybody answered.
        refusals: the codes with which sites made the last one of them fall.
        opens_not_before: when the pause after it ends.
        declined_under: of the sites that declined the study, digest of their decision about it.
    """

    plan: Plan
    model: str
    spares_left: int
    status: Status = "waiting"
    joined: tuple[str, ...] = ()
    round: int = 0
    attempt: int = 0
    phase: int = 0
    applied: int = 0
    opened_at: float = 0.0
    away: Mapping[str, float] = field(default_factory=dict)
    pending: tuple[str, ...] = ()
    replies: tuple[Reply, ...] = ()
    stopped: Mapping[str, str] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    missed: tuple[str, ...] = ()
    outcome: Literal["", "COMPLETE", "PARTIAL", "FAILED"] = ""
    reason: str = ""
    metrics: Metrics = field(default_factory=dict)
    stop: Literal["", "pause", "halt"] = ""
    stop_by: str = ""
    stop_code: str = ""
    stop_on: float = 0.0
    order: int = 0
    pace: Mapping[str, Pace] = field(default_factory=dict)
    overdue: Mapping[str, int] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[str, float] = field(default_factory=dict)
    asked: Mapping[str, float] = field(default_factory=dict)
    extended_s: float = 0.0
    is_repeat: bool = False
    memory: str = ""
    request: str = ""
    last_asked: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    failures: int = 0
    refusals: Mapping[str, str] = field(default_factory=dict)
    opens_not_before: float = 0.0
    declined_under: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Launched:
    """The consortium started the study with the sites that approved it."""

    at: float
    sites: tuple[str, ...]
    number: int = 1  # of the order


@dataclass(frozen=True, slots=True)
class Ordered:
    """A person of the consortium ordered something about a study.

    Attributes:
        on: seconds since 1970.
        code: why, where no person ordered it.
        subject: the site to exclude or include, the seconds by which to extend.
        reason: in the person's words.
    """

    at: float
    verb: Literal["pause", "halt", "resume", "close", "exclude", "include", "extend", "retry"]
    number: int
    by: str = ""
    on: float = 0.0
    code: str = ""
    subject: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SiteStopped:
    """A site is out for good: withdrawn by order, or it took its approval back."""

    at: float
    site: str
    code: str
    number: int = 0  # of the order, if there was one


@dataclass(frozen=True, slots=True)
class SiteJoined:
    """An invited site approved after the launch; it takes part from the next opening on."""

    at: float
    site: str


@dataclass(frozen=True, slots=True)
class SiteWindow:
    """A site said when it may train: now, or not before ``opens_at`` of the same clock."""

    at: float
    site: str
    opens_at: float  # 0.0: now


@dataclass(frozen=True, slots=True)
class Resumed:
    """The coordinator started again; nothing is known about connections."""

    at: float


@dataclass(frozen=True, slots=True)
class SiteUp:
    """A site is connected."""

    at: float
    site: str


@dataclass(frozen=True, slots=True)
class SiteDown:
    """A site's connection ended."""

    at: float
    site: str


@dataclass(frozen=True, slots=True)
class Replied:
    """A site's answer to a request, already validated: an update counts unless it has a code.

    ``decision`` is the digest of the site's signed decision about the study at that time.
    """

    at: float
    key: TaskKey
    reply: Reply
    decision: str = ""


@dataclass(frozen=True, slots=True)
class AnsweredLate:
    """A site answered the request of a round that was applied without it."""

    at: float
    site: str
    round: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed."""

    at: float


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The closing round's new model is durable, or ``code`` says why there is none."""

    at: float
    model: str = ""
    code: str = ""
    metrics: Metrics = field(default_factory=dict)
    memory: str = ""  # digest of what the strategy keeps between rounds, if it keeps any
    request: str = ""  # digest of what sites fetch in the model's place, if it is another file


_SiteEvent: TypeAlias = SiteUp | SiteDown | SiteWindow | SiteJoined | SiteStopped
_RoundEvent: TypeAlias = Replied | AnsweredLate | Aggregated
Event: TypeAlias = Launched | Resumed | _SiteEvent | _RoundEvent | Ticked | Ordered


@dataclass(frozen=True, slots=True)
class Commit:
    """Make the new state and the cells of the attempt that ended durable; always the first."""

    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """Ask a site for the present phase."""

    site: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop asking a site for the phase that closed."""

    site: str
    key: TaskKey


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Make the next model of these updates, in roster order."""

    updates: tuple[tuple[str, str], ...]  # (site, digest)


Action: TypeAlias = Commit | Send | Cancel | Aggregate
