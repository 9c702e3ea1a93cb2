"""A study's algorithm: made from its words, checked as a whole, with the numbers that it needs.

Whoever runs one, the coordinator, a site or a simulation, gets it here.
"""

from __future__ import annotations

import numpy as np

from larrey_protocol.study import Study
from larrey_protocol.tasks import loss_name
from larrey_strategies.algorithm import Algorithm
from larrey_strategies.combinations import check, setting_of
from larrey_strategies.contract import RoundFacts
from larrey_strategies.drift import update_bound
from larrey_strategies.local_tensors import local_names
from larrey_strategies.registry import make_algorithm, words_of

__all__ = ["algorithm_of", "facts_of", "require_algorithm", "site_vectors"]


def algorithm_of(study: Study) -> Algorithm:
    """Return the algorithm that a study names.

    Raises:
        UsageError: as `make_algorithm`.
    """
    return make_algorithm(words_of(study.file.training))


def require_algorithm(study: Study) -> Algorithm:
    """Return the study's algorithm if it can be run as the study says, on every site.

    Raises:
        UsageError: as `make_algorithm`; ``update-unbounded`` where the border could not tell an
            honest update.
        Refusal: as `larrey_strategies.combinations.check` says; ``loss-couples-patients``,
            ``local-tensors-unfit``.
    """
    loss_name(study.contract)  # a loss of single rows, whatever the algorithm
    algorithm = algorithm_of(study)
    local_names(study)
    for site in study.file.site_names:
        update_bound(study, site)
    refusal = check(words_of(study.file.training), setting_of(study))
    if refusal is not None:
        raise refusal
    return algorithm


def facts_of(study: Study, *, share: float = 1.0) -> RoundFacts:
    """Return what a step may know of a round; ``share``: the contributors' part of the weights."""
    training = study.file.training
    return RoundFacts(training.local_steps, training.learning_rate, training.momentum, share)


def site_vectors(algorithm: Algorithm) -> tuple[str, ...]:
    """Return the names of what a site keeps between rounds, sorted; empty for most algorithms."""
    return tuple(sorted(algorithm.site_init(np.zeros(1, np.float32))))
