"""What of an algorithm combines with what of a study: one table, checked before anybody signs.

A rule either breaks a promise (a robust rule that cannot see updates withstands nothing) or the
mathematics that a part rests on (SCAFFOLD's c is the mean of all c_i, or it is nothing). Parts of
one paper that need each other are `larrey_strategies.registry`'s ``parts-mismatch``.

What does combine and may surprise: every part with per-site DP costs no epsilon, as it works on
released updates; SCAFFOLD, FedDyn and MR-MTL go with float16 and int8, because a site's state is
computed from the update as the coordinator decodes it; with secure aggregation too, because
their servers need the mean alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from larrey_protocol.errors import Refusal
from larrey_protocol.study import DpSgd, Study
from larrey_strategies.centered_clipping import CenteredClipping
from larrey_strategies.krum import Krum, MultiKrum
from larrey_strategies.local_tensors import shared_size
from larrey_strategies.norm_bounding import NormBounding
from larrey_strategies.registry import (
    OBJECTIVES,
    OPTIMIZERS,
    Algorithm,
    AlgorithmWords,
    Preset,
    make_algorithm,
)
from larrey_strategies.trimmed_mean import TrimmedMean

__all__ = ["RULES", "Rule", "Setting", "check", "setting_of"]

_HALVES = OBJECTIVES.keys() & OPTIMIZERS.keys()  # state at the sites and at the server


@dataclass(frozen=True, slots=True)
class Setting:
    """What of a study decides whether an algorithm fits.

    Attributes:
        quorum: the fewest contributors with which a round is applied.
        per_site_dp: each update carries its own noise (dp-sgd).
        secure_aggregation: the coordinator sees the sum alone.
        third_party_claim: the study states an epsilon of the published mean.
        app: a standard Flower app trains in place of Larrey's own loop.
        local_tensors: some of the model's tensors stay at the sites.
        noise_norm: what the L2 norm of an update is from its noise alone; 0 where there is none
            or nobody knows.
    """

    quorum: int
    per_site_dp: bool = False
    secure_aggregation: bool = False
    third_party_claim: bool = False
    app: bool = False
    local_tensors: bool = False
    noise_norm: float = 0.0


@dataclass(frozen=True, slots=True)
class _Case:
    parts: Preset
    algorithm: Algorithm
    setting: Setting


@dataclass(frozen=True, slots=True)
class Rule:
    """A combination that is refused.

    Attributes:
        code: of the refusal.
        reason: one sentence; the reference page prints it.
        next_step: what the author of the study may do.
        breaks: whether a case is such a combination.
    """

    code: str
    reason: str
    next_step: str
    breaks: Callable[[_Case], bool]


def check(words: AlgorithmWords, setting: Setting) -> Refusal | None:
    """Return why a study's algorithm does not fit the study, None if it does.

    Raises:
        UsageError: as `make_algorithm`.
    """
    case = _Case(words.parts(), make_algorithm(words), setting)
    for rule in RULES:
        if rule.breaks(case):
            parts = case.parts
            text = f"{parts.objective} / {parts.aggregator} / {parts.optimizer}: {rule.reason}"
            return Refusal(rule.code, text, rule.next_step)
    return None


def setting_of(study: Study) -> Setting:
    """Return what of a study decides; the noise is that of the site with the largest batch.

    An update is the sum of H noised steps, the noise of step j weighed by momentum:
    ``eta_l sigma C / B * sqrt(d * sum_j a_j^2)`` with ``a_j = (1 - rho^j) / (1 - rho)``.
    """
    training, privacy = study.file.training, study.file.privacy
    noise = 0.0
    if isinstance(privacy, DpSgd):
        rho, steps = training.momentum, range(1, training.local_steps + 1)
        weights = math.fsum(((1 - rho**j) / (1 - rho)) ** 2 for j in steps)
        batch = max(study.expected_batch(site) for site in study.file.site_names)
        one = training.learning_rate * privacy.noise_multiplier * privacy.clip / batch
        noise = one * math.sqrt(shared_size(study) * weights)
    return Setting(
        quorum=study.file.rounds.quorum,
        per_site_dp=isinstance(privacy, DpSgd),
        app=training.app is not None,
        local_tensors=bool(training.local),
        noise_norm=noise,
    )


def _sees_no_updates(case: _Case) -> bool:
    return case.setting.secure_aggregation and case.parts.aggregator != "mean"


def _claims_of_another_sum(case: _Case) -> bool:
    return case.setting.third_party_claim and case.parts.aggregator != "mean"


def _state_without_mean(case: _Case) -> bool:
    return case.parts.objective in _HALVES and case.parts.aggregator != "mean"


def _app_trains(case: _Case) -> bool:
    own = (
        case.setting.local_tensors
        or case.parts.objective != "plain"
        or case.parts.optimizer == "fednova"
    )
    return case.setting.app and own


def _nova_of_proximal_steps(case: _Case) -> bool:
    return case.parts.optimizer == "fednova" and case.parts.objective == "fedprox"


def _krum_under_noise(case: _Case) -> bool:
    return case.setting.per_site_dp and isinstance(case.algorithm.aggregator, Krum | MultiKrum)


def _shorter_than_noise(case: _Case) -> bool:
    rule, noise = case.algorithm.aggregator, case.setting.noise_norm
    if isinstance(rule, CenteredClipping):
        return rule.tau < noise
    return isinstance(rule, NormBounding) and rule.bound < noise


def _quorum_too_small(case: _Case) -> bool:
    rule, quorum = case.algorithm.aggregator, case.setting.quorum
    if case.parts.aggregator in {"mean", "norm-bounding"}:
        return False  # a bound on each update holds with one site
    if isinstance(rule, MultiKrum) and rule.f and rule.m > quorum - rule.f - 2:
        return True
    return quorum < (rule.fewest if isinstance(rule, Krum | MultiKrum) and rule.f else 3)


def _trims_nothing(case: _Case) -> bool:
    rule = case.algorithm.aggregator
    # 1e-9: 0.29 * 100 is 28.999... in float64
    return isinstance(rule, TrimmedMean) and int(rule.beta * case.setting.quorum + 1e-9) == 0


RULES = (
    Rule(
        "aggregator-needs-updates",
        "a robust rule compares the sites' updates, which secure aggregation hides",
        "Take aggregator 'mean', or leave secure aggregation off where sites are not trusted.",
        _sees_no_updates,
    ),
    Rule(
        "aggregator-not-a-sum",
        "epsilon towards third parties is of a weighted sum with public weights, which this"
        " aggregator does not return",
        "Take aggregator 'mean', or make no claim towards third parties.",
        _claims_of_another_sum,
    ),
    Rule(
        "objective-needs-mean",
        "the server's state is the mean of the sites' states only if updates are averaged; under"
        " another rule the corrections no longer cancel, and MR-MTL's model is no mean",
        "Take aggregator 'mean', or objective 'plain' or 'fedprox'.",
        _state_without_mean,
    ),
    Rule(
        "app-trains-itself",
        "a standard Flower app takes its own steps: nothing can be added to its gradients or kept"
        " of its model, and their number and length are not known",
        "Take strategy 'fedavg' or another whose objective is 'plain'; the app may hold the rest.",
        _app_trains,
    ),
    Rule(
        "steps-not-plain",
        "FedNova divides by the weight of plain steps; those of FedProx weigh less with each step",
        "Take optimizer 'fedavg' with fedprox, or objective 'plain' with fednova.",
        _nova_of_proximal_steps,
    ),
    Rule(
        "krum-under-noise",
        "Krum's guarantee needs updates that differ less than they are long; per-site noise grows"
        " with the root of the model's size (Guerraoui et al. 2021, arXiv 2102.08166), and what it"
        " picks carries noise that no mean reduces",
        "Take 'trimmed-mean', 'median' or 'norm-bounding'.",
        _krum_under_noise,
    ),
    Rule(
        "radius-below-noise",
        "the radius is shorter than an update's noise alone, so that every honest update would be"
        " cut",
        "Raise tau or bound above the norm of the noise.",
        _shorter_than_noise,
    ),
    Rule(
        "quorum-too-small",
        "with the fewest contributors that the study accepts the rule withstands nobody",
        "Raise rounds.quorum: 3 at least, 2 f + 3 for krum, and m + f + 2 for multi-krum.",
        _quorum_too_small,
    ),
    Rule(
        "trim-cuts-nothing",
        "beta times the quorum is below one: nothing is left out, so that it is the mean",
        "Raise beta or rounds.quorum until their product is at least 1.",
        _trims_nothing,
    ),
)
