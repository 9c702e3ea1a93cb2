"""The gate: what this hospital lets a study and a request do. Pure; values in, a decision out.

Nothing here reads a file, a clock or a ledger: the caller hands over what it found. A refusal
spends nothing, and only its code leaves the site. The first rule that says no decides.

A study, on arrival and again when a person approves it (`decide_study`):
     1  site-not-invited       the study does not name this site
     2  strategy-unknown       no installed strategy has that name and those parameters
     3  mechanism-none         no epsilon, and no dataset (or not this one) allows that in writing
     4  app-not-listed         a standard Flower app that the policy does not list as unaccounted
     5  app-digest-differs     the installed app is not the one whose digest the policy lists
     6  noise-below-minimum    less noise than the policy's minimum
     7  delta-above-cap        a larger delta than the policy allows
     8  epsilon-above-cap      a larger epsilon than the policy allows to one study
     9  mechanism-unaccounted  the accountant cannot say what the mechanism costs
    10  epsilon-understated    rounds and spare rounds cost more than the study says
  when a dataset is chosen:
    11  dataset-unknown        site.toml has no dataset of that name
    12  unit-differs           the contract counts other units than the dataset's patients
    13  units-below-minimum    fewer patients than the policy or the contract asks for
    14  budget-exhausted       the dataset's budget does not hold all rounds and spare rounds

A request of the coordinator, before anything is fetched (`decide_task`):
     1  study-not-approved     no person here approved that digest
     2  digest-mismatch        the stored study is not the one that was approved
     3  phase-unknown          not a call that the approved study names
     4  round-out-of-range     not one of the approved rounds
     5  deadline-passed        nobody waits for the answer any more
     6  model-wrong-size       not the size of the study's own model
     7  every rule of a study  the policy may have become stricter since
     8  not-held               the ledger holds nothing for the study on its dataset
  unless its answer is stored and is only sent again:
     9  study-closed           the study ended here
    10  phase-too-early        a later call on a model that this site has not trained
    11  round-not-increasing   a later round was reserved already
    12  too-many-attempts      other inputs for the same round than the spare rounds pay for
    13  budget-exhausted       every approved round was reserved
The last two concern train alone: the later calls of a round use what it reserved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from larrey_client.settings import Policy
from larrey_client.task import TRAIN, Task
from larrey_privacy.ledger import Hold
from larrey_protocol.models import model_layout
from larrey_protocol.study import DpSgd, Study

__all__ = [
    "ALLOW",
    "Allow",
    "Decision",
    "Refuse",
    "StudyCase",
    "StudyFacts",
    "TaskCase",
    "decide_study",
    "decide_task",
]

_CLAIM_SLACK = 1e-6  # rounding of a decimal number and of other versions of the accountant
_CaseT = TypeVar("_CaseT")


@dataclass(frozen=True, slots=True)
class Allow:
    """The gate is open."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The gate stays shut. The code may leave the site; reason and next step stay."""

    code: str
    reason: str
    next_step: str = ""


Decision = Allow | Refuse
ALLOW = Allow()


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """What had to be computed or looked up about a study.

    Attributes:
        epsilon: PLD epsilon of all rounds and spare rounds at the study's delta; -1 without one.
        strategy_code: why the strategy is unknown, empty if it is known.
        mechanism_code: why the accountant refuses, empty if it does not.
        app_digest: digest of the installed source of the listed app, empty if there is none.
    """

    epsilon: float
    strategy_code: str = ""
    mechanism_code: str = ""
    app_digest: str = ""


@dataclass(frozen=True, slots=True)
class StudyCase:
    """A study before this site's policy; the last four are empty until a dataset is chosen."""

    site: str
    policy: Policy
    study: Study
    facts: StudyFacts
    datasets: tuple[str, ...]  # of site.toml
    dataset: str = ""
    units: int | None = None  # patients found in the dataset
    rounds_free: int | None = None  # such rounds that the ledger can still hold
    unit: str | None = None  # the column that site.toml says a patient is told by


@dataclass(frozen=True, slots=True)
class TaskCase:
    """A request before what this site approved and spent; empty where nothing was approved."""

    task: Task
    seconds_left: float
    approval: StudyCase | None = None
    hold: Hold | None = None
    is_answered: bool = False


def decide_study(case: StudyCase) -> Decision:
    """Return whether policy, and the dataset if one is chosen, let the study run here."""
    return _first(_STUDY_RULES, case)


def decide_task(case: TaskCase) -> Decision:
    """Return whether this request may be answered; an answered one costs nothing more."""
    return _first(_TASK_RULES, case)


def _first(rules: Sequence[Callable[[_CaseT], Refuse | None]], case: _CaseT) -> Decision:
    for rule in rules:
        refusal = rule(case)
        if refusal is not None:
            return refusal
    return ALLOW


def _invited(case: StudyCase) -> Refuse | None:
    if case.site in case.study.file.site_names:
        return None
    return Refuse("site-not-invited", f"the study does not invite {case.site}")


def _strategy(case: StudyCase) -> Refuse | None:
    if not case.facts.strategy_code:
        return None
    name = case.study.file.training.strategy
    return Refuse("strategy-unknown", f"strategy '{name}': {case.facts.strategy_code}")


def _mechanism(case: StudyCase) -> Refuse | None:
    if isinstance(case.study.file.privacy, DpSgd):
        return None
    allowed = case.policy.allow_without_dp
    if case.dataset in allowed or (not case.dataset and allowed):
        return None
    return Refuse(
        "mechanism-none",
        "the study has no differential privacy, and no policy here allows that in writing",
        "Ask for a study with dp-sgd, or list the dataset under policy.allow_without_dp.",
    )


def _app_listed(case: StudyCase) -> Refuse | None:
    name = case.study.file.training.app
    rules = [rule for rule in case.policy.apps if rule.name == name and rule.unaccounted]
    if name is None or rules:
        return None
    return Refuse("app-not-listed", f"app '{name}' is not listed as unaccounted in the policy")


def _app_digest(case: StudyCase) -> Refuse | None:
    name = case.study.file.training.app
    listed = [rule.digest for rule in case.policy.apps if rule.name == name]
    if name is None or case.facts.app_digest in listed:
        return None
    return Refuse("app-digest-differs", f"the installed app '{name}' is not the listed one")


def _noise(case: StudyCase) -> Refuse | None:
    privacy, minimum = case.study.file.privacy, case.policy.min_noise_multiplier
    if not isinstance(privacy, DpSgd) or privacy.noise_multiplier >= minimum:
        return None
    found = f"noise multiplier {privacy.noise_multiplier:g}, at least {minimum:g} is required"
    return Refuse("noise-below-minimum", found)


def _delta(case: StudyCase) -> Refuse | None:
    privacy, cap = case.study.file.privacy, case.policy.max_delta
    if not isinstance(privacy, DpSgd) or privacy.delta <= cap:
        return None
    return Refuse("delta-above-cap", f"delta {privacy.delta:g}, at most {cap:g} is allowed")


def _epsilon(case: StudyCase) -> Refuse | None:
    privacy, cap = case.study.file.privacy, case.policy.max_epsilon_per_study
    if not isinstance(privacy, DpSgd) or privacy.epsilon <= cap:
        return None
    return Refuse("epsilon-above-cap", f"epsilon {privacy.epsilon:g}, at most {cap:g} a study")


def _accounted(case: StudyCase) -> Refuse | None:
    if not case.facts.mechanism_code:
        return None
    return Refuse("mechanism-unaccounted", f"the accountant says {case.facts.mechanism_code}")


def _claim(case: StudyCase) -> Refuse | None:
    privacy, true = case.study.file.privacy, case.facts.epsilon
    if not isinstance(privacy, DpSgd) or true <= privacy.epsilon * (1 + _CLAIM_SLACK):
        return None
    found = f"the study says epsilon {privacy.epsilon:g}, all its rounds cost {true:.4g}"
    return Refuse("epsilon-understated", found, "Ask for a corrected study.")


def _dataset(case: StudyCase) -> Refuse | None:
    if not case.dataset or case.dataset in case.datasets:
        return None
    known = ", ".join(case.datasets)
    return Refuse("dataset-unknown", f"no dataset '{case.dataset}' here", f"There is: {known}.")


def _unit(case: StudyCase) -> Refuse | None:
    column = case.study.contract.unit.column
    if case.unit is None or column == case.unit:
        return None
    found = f"the study protects a value of '{column}', here a patient is told by '{case.unit}'"
    return Refuse("unit-differs", found, "Ask for a contract with the right unit.column.")


def _units(case: StudyCase) -> Refuse | None:
    least = max(case.policy.min_units, case.study.contract.unit.min_count)
    if case.units is None or case.units >= least:
        return None
    return Refuse("units-below-minimum", f"{case.units} patients, at least {least} are required")


def _budget(case: StudyCase) -> Refuse | None:
    needed = case.study.file.training.rounds_held
    if case.rounds_free is None or case.rounds_free >= needed:
        return None
    return Refuse(
        "budget-exhausted",
        f"the study needs {needed} rounds of budget, {case.rounds_free} are free",
        "See `larrey-site ledger`; ask for fewer rounds or more noise.",
    )


def _approved(case: TaskCase) -> Refuse | None:
    if case.approval is not None:
        return None
    return Refuse("study-not-approved", "no person here approved this study")


def _digest(case: TaskCase) -> Refuse | None:
    if _approval(case).study.digest == case.task.study:
        return None
    return Refuse("digest-mismatch", "the stored study is not the approved one")


def _phase(case: TaskCase) -> Refuse | None:
    calls = _approval(case).study.file.training.calls
    if case.task.phase in calls:
        return None
    return Refuse("phase-unknown", f"the approved study only calls {', '.join(calls)}")


def _round(case: TaskCase) -> Refuse | None:
    last = _approval(case).study.file.training.rounds_held
    if 1 <= case.task.round <= last:
        return None
    return Refuse("round-out-of-range", f"round {case.task.round}, approved are 1 to {last}")


def _deadline(case: TaskCase) -> Refuse | None:
    if case.seconds_left > 0:
        return None
    return Refuse("deadline-passed", "the round's deadline is over")


def _model_size(case: TaskCase) -> Refuse | None:
    expected = model_layout(_approval(case).study).nbytes
    if case.task.model_bytes == expected:
        return None
    found = f"a model of {case.task.model_bytes} bytes, the study's has {expected}"
    return Refuse("model-wrong-size", found)


def _still_allowed(case: TaskCase) -> Refuse | None:
    held = replace(_approval(case), rounds_free=None)  # its budget is held already
    decision = decide_study(held)
    return decision if isinstance(decision, Refuse) else None


def _held(case: TaskCase) -> Refuse | None:
    if case.hold is not None:
        return None
    return Refuse("not-held", "the ledger holds no budget for the study")


def _open(case: TaskCase) -> Refuse | None:
    if case.is_answered or (case.hold and not case.hold.is_closed):
        return None
    return Refuse("study-closed", "the study ended at this site")


def _trained(case: TaskCase) -> Refuse | None:
    if case.is_answered or case.hold is None or case.task.phase == TRAIN:
        return None
    found = case.hold.find(case.task.round, case.task.model)
    if found is not None and found.output_digest:
        return None
    return Refuse("phase-too-early", f"{case.task.phase} was asked before the round's train")


def _increasing(case: TaskCase) -> Refuse | None:
    done = [r.round for r in case.hold.reservations] if case.hold else []
    if case.is_answered or not done or case.task.round >= done[-1]:
        return None
    found = f"round {case.task.round} was asked after round {done[-1]}"
    return Refuse("round-not-increasing", found)


def _attempts(case: TaskCase) -> Refuse | None:
    if case.is_answered or case.hold is None or case.task.phase != TRAIN:
        return None
    attempts = sum(1 for r in case.hold.reservations if r.round == case.task.round)
    if attempts <= case.hold.spare_rounds:
        return None
    return Refuse("too-many-attempts", f"round {case.task.round} was attempted {attempts} times")


def _rounds_left(case: TaskCase) -> Refuse | None:
    if case.is_answered or case.hold is None or case.task.phase != TRAIN:
        return None
    if case.hold.rounds_used < case.hold.rounds_total:
        return None
    return Refuse("budget-exhausted", f"all {case.hold.rounds_total} approved rounds were used")


def _approval(case: TaskCase) -> StudyCase:
    if case.approval is None:
        raise ValueError("rules after the first need an approval")
    return case.approval


_STUDY_RULES = (
    _invited,
    _strategy,
    _mechanism,
    _app_listed,
    _app_digest,
    _noise,
    _delta,
    _epsilon,
    _accounted,
    _claim,
    _dataset,
    _unit,
    _units,
    _budget,
)
_TASK_RULES = (
    _approved,
    _digest,
    _phase,
    _round,
    _deadline,
    _model_size,
    _still_allowed,
    _held,
    _open,
    _trained,
    _increasing,
    _attempts,
    _rounds_left,
)
