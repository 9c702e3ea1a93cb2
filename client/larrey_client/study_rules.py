"""Rules of the gate about a study before this site's policy; `larrey_client.gate` lists them."""

from __future__ import annotations

from larrey_client.gate_facts import Refuse, StudyCase
from larrey_protocol.amendments import require_child
from larrey_protocol.errors import Refusal
from larrey_protocol.study import DpSgd

__all__ = ["STUDY_RULES"]

_ASK = "Ask the consortium for a study whose algorithm this software can run."
_CLAIM_SLACK = 1e-6  # rounding of a decimal number and of other versions of the accountant


def _invited(case: StudyCase) -> Refuse | None:
    if case.site in case.study.file.site_names:
        return None
    return Refuse("site-not-invited", f"the study does not invite {case.site}")


def _follows(case: StudyCase) -> Refuse | None:
    if case.parent is None:
        return None
    try:
        require_child(case.parent, case.study)
    except Refusal as error:
        return Refuse(error.code, error.message, error.next_step)
    return None


def _strategy(case: StudyCase) -> Refuse | None:
    if not case.facts.strategy_code:
        return None
    name, why = case.study.file.training.strategy, case.facts.strategy_reason
    found = f"strategy '{name}': {case.facts.strategy_code}"
    return Refuse("strategy-unknown", f"{found}: {why}" if why else found, _ASK)


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


def _metrics(case: StudyCase) -> Refuse | None:
    training = case.study.file.training
    listed = any(rule.name == training.app and rule.metrics for rule in case.policy.apps)
    if not training.metrics or listed:
        return None
    return Refuse(
        "metrics-not-listed",
        f"app '{training.app}' would tell {', '.join(training.metrics)}, which no epsilon covers",
        "Ask for a study without evaluate and query, or write metrics = true in the app's rule.",
    )


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


def _registered(case: StudyCase) -> Refuse | None:
    if not case.dataset or case.is_registered:
        return None
    return Refuse(
        "dataset-unregistered",
        f"nobody compared the patients of '{case.dataset}' with those of the other datasets",
        f"The officer registers it: larrey-site data add {case.dataset} --key FILE",
    )


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


STUDY_RULES = (
    _invited,
    _follows,
    _strategy,
    _mechanism,
    _app_listed,
    _app_digest,
    _metrics,
    _noise,
    _delta,
    _epsilon,
    _accounted,
    _claim,
    _dataset,
    _registered,
    _unit,
    _units,
    _budget,
)
