"""What a study costs: its mechanism as the ledger's value, and what the gate wants to know.

Epsilon is per patient at this site, add/remove neighbours, by PLD at the study's own delta.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress

from larrey_client.gate_facts import StudyFacts
from larrey_client.settings import AppRule
from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import UNBOUNDED, Mechanism, Spend
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import LarreyError
from larrey_protocol.models import model_layout
from larrey_protocol.study import DpSgd, Study
from larrey_strategies.of_study import require_algorithm

__all__ = ["app_digest", "round_mechanism", "study_facts", "total_mechanism", "unit_of"]


def round_mechanism(study: Study) -> Spend:
    """Return what one round does to the data."""
    privacy = study.file.privacy
    if not isinstance(privacy, DpSgd):
        return UNBOUNDED
    return Mechanism(
        privacy.noise_multiplier,
        privacy.sampling_rate,
        study.file.training.local_steps,
        model_layout(study).size,
    )


def unit_of(study: Study) -> str:
    """Return whom the study's epsilon protects, with the column that tells one from another.

    The ledger keeps it with the budget: a later study that counts other units is refused.
    """
    unit = study.contract.unit
    return f"{unit.name} (a value of {unit.column})"


def total_mechanism(study: Study) -> Spend:
    """Return what all rounds and spare rounds together do to the data."""
    one = round_mechanism(study)
    return one.over(study.file.training.rounds_held) if isinstance(one, Mechanism) else one


def study_facts(study: Study, rule: AppRule | None) -> StudyFacts:
    """Return what the gate wants to know about a study; takes up to seconds."""
    epsilon, mechanism_code, strategy_code, why = -1.0, "", "", ""
    privacy, total = study.file.privacy, total_mechanism(study)
    try:
        require_algorithm(study)
    except LarreyError as error:
        strategy_code, why = error.code, error.message
    try:
        if isinstance(total, Mechanism) and isinstance(privacy, DpSgd):
            epsilon = epsilon_pld(total, privacy.delta)
    except LarreyError as error:
        mechanism_code = error.code
    digest = app_digest(rule.module) if rule else ""
    return StudyFacts(epsilon, strategy_code, mechanism_code, digest, why)


def app_digest(app: str) -> str:
    """Return the digest of the source file of ``package.module:attribute``, empty if none.

    Finds the file without importing anything of it: nothing of an app runs in the agent.
    """
    first, *rest = app.partition(":")[0].split(".")
    spec = importlib.util.find_spec(first)
    if spec is None:
        return ""
    if rest:
        roots = [os.path.join(root, *rest) for root in spec.submodule_search_locations or ()]
        files = [p for r in roots for p in (f"{r}.py", os.path.join(r, "__init__.py"))]
    else:
        files = [spec.origin] if spec.origin else []
    for path in files:
        is_none = suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)
        with is_none, open(path, "rb") as file:
            return digest_bytes(file.read())
    return ""
