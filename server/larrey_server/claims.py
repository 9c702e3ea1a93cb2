"""Whether a study's promises can be true: its epsilon, its strategy, its sites.

Epsilon is per patient at one site, neighbours by adding or removing that patient, by PLD, over all
rounds that a site holds for the study (rounds + spare_rounds, each of ``local_steps`` steps).
"""

from __future__ import annotations

from collections.abc import Collection

from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import Refusal
from larrey_protocol.models import model_layout
from larrey_protocol.study import DpSgd, Study
from larrey_strategies.of_study import require_algorithm

__all__ = ["check_claims", "check_sites", "true_epsilon"]


def true_epsilon(study: Study) -> float | None:
    """Return the epsilon that the study costs at its delta, None without differential privacy."""
    privacy = study.file.privacy
    if not isinstance(privacy, DpSgd):
        return None
    training = study.file.training
    mechanism = Mechanism(
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=privacy.sampling_rate,
        steps=training.local_steps * training.rounds_held,
        dimension=model_layout(study).size,
    )
    return epsilon_pld(mechanism, privacy.delta)


def check_claims(study: Study) -> float | None:
    """Return the study's true epsilon if its claims hold.

    Raises:
        Refusal: ``epsilon-impossible``, or as `require_algorithm`.
        UsageError: as `require_algorithm`.
    """
    require_algorithm(study)
    privacy = study.file.privacy
    if not isinstance(privacy, DpSgd):
        return None
    largest = max(site.patients for site in study.file.sites)
    if privacy.delta * largest > 1:
        raise _impossible(
            f"delta {privacy.delta:g} would allow to publish one of {largest} patients outright",
            f"Choose delta below {1 / largest:.2g}.",
        )
    epsilon = true_epsilon(study)
    if epsilon is None or epsilon > privacy.epsilon * (1 + 1e-9):  # rounding of a decimal claim
        held = study.file.training.rounds_held
        raise _impossible(
            f"the study claims epsilon {privacy.epsilon:g}, but noise {privacy.noise_multiplier:g}"
            f" over {held} rounds costs {epsilon:.4g} at delta {privacy.delta:g}",
            "Raise noise_multiplier, do fewer rounds or steps, or claim the true epsilon.",
        )
    return epsilon


def check_sites(study: Study, registered: Collection[str]) -> None:
    """Return if every invited site is registered.

    Raises:
        Refusal: ``unknown-site``.
    """
    unknown = [name for name in study.file.site_names if name not in registered]
    if unknown:
        raise Refusal(
            "unknown-site",
            f"the study invites {', '.join(unknown)}, not registered at this coordinator",
            "Add the site to coordinator.toml, or correct its name in the study.",
        )


def _impossible(message: str, next_step: str) -> Refusal:
    return Refusal("epsilon-impossible", message, next_step)
