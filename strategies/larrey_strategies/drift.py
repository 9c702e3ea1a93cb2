"""How large a study's objective lets an honest update be: its correction, told to the norm bound.

The derivation is in `larrey_protocol.norms`, which knows no strategies.
"""

from __future__ import annotations

from dataclasses import replace

from larrey_protocol.errors import UsageError
from larrey_protocol.norms import NO_DRIFT, Drift, norm_bound
from larrey_protocol.study import Study
from larrey_strategies.contract import LocalObjective
from larrey_strategies.fedavg import Plain
from larrey_strategies.feddyn import FedDyn
from larrey_strategies.fedprox import FedProx
from larrey_strategies.local_tensors import local_spans
from larrey_strategies.mr_mtl import MrMtl
from larrey_strategies.registry import make_algorithm, words_of
from larrey_strategies.scaffold import Scaffold

__all__ = ["drift_of", "update_bound"]


def drift_of(objective: LocalObjective) -> Drift:
    """Return what an objective adds to each gradient.

    Raises:
        UsageError: ``update-unbounded`` for an objective whose addition nobody derived.
    """
    match objective:
        case Plain():
            return NO_DRIFT
        case FedProx(mu=mu):
            return Drift(pull=mu)
        case FedDyn(alpha=alpha):
            return Drift(pull=alpha, memory="gradient")
        case MrMtl(lambda_=pull):
            return Drift(pull=pull, memory="model")
        case Scaffold():
            return Drift(memory="variate")
    kind = type(objective).__name__
    raise UsageError(
        "update-unbounded",
        f"the border has no bound for the updates of objective {kind}",
        "Derive it in larrey_protocol.norms, or take another objective.",
    )


def update_bound(study: Study, site: str, phase: str = "train") -> float:
    """Return the largest L2 norm that a site's answer may have under the study's algorithm.

    Raises:
        UsageError: as `make_algorithm` and `larrey_protocol.norms.norm_bound`.
        Refusal: as `larrey_strategies.local_tensors.local_names`.
    """
    objective = make_algorithm(words_of(study.file.training)).objective
    silent = sum(end - first for first, end in local_spans(study))
    return norm_bound(study, site, phase, replace(drift_of(objective), silent=silent))
