"""A study's algorithm: made from its words, checked as a whole, with the numbers that it needs.

Whoever runs one, the coordinator, a site or a simulation, gets it here.
"""

from __future__ import annotations

import numpy as np

from larrey_protocol.errors import UsageError
from larrey_protocol.study import Study
from larrey_strategies.algorithm import Algorithm
from larrey_strategies.contract import RoundFacts
from larrey_strategies.drift import update_bound
from larrey_strategies.fedavg import Plain
from larrey_strategies.registry import make_algorithm, words_of

__all__ = ["algorithm_of", "facts_of", "require_algorithm", "site_vectors"]

_WIRED = ("fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi")


def algorithm_of(study: Study) -> Algorithm:
    """Return the algorithm that a study names.

    Raises:
        UsageError: as `make_algorithm`.
    """
    return make_algorithm(words_of(study.file.training))


def require_algorithm(study: Study) -> Algorithm:
    """Return the study's algorithm if it can be run as the study says, on every site.

    Raises:
        UsageError: as `make_algorithm`; ``objective-unused`` where a standard app would train in
            its own way; ``update-unbounded`` where the border could not tell an honest update.
    """
    algorithm = algorithm_of(study)
    _require_wired(study)
    app = study.file.training.app
    if app and not isinstance(algorithm.objective, Plain):
        raise UsageError(
            "objective-unused",
            f"app '{app}' trains in its own way and would ignore the study's objective",
            "Take a strategy with plain local training, or leave the app out.",
        )
    for site in study.file.site_names:
        update_bound(study, site)
    return algorithm


def _require_wired(study: Study) -> None:
    training = study.file.training
    words = (training.objective, training.aggregator, training.optimizer)
    if any(words) or training.aggregator_parameters or training.strategy not in _WIRED:
        raise UsageError(
            "algorithm-not-run-yet",
            f"the coordinator cannot run '{training.strategy}' with these parts yet",
            f"Take one of {', '.join(_WIRED)}.",
        )


def facts_of(study: Study, *, share: float = 1.0) -> RoundFacts:
    """Return what a step may know of a round; ``share``: the contributors' part of the weights."""
    training = study.file.training
    return RoundFacts(training.local_steps, training.learning_rate, training.momentum, share)


def site_vectors(algorithm: Algorithm) -> tuple[str, ...]:
    """Return the names of what a site keeps between rounds, sorted; empty for most algorithms."""
    return tuple(sorted(algorithm.site_init(np.zeros(1, np.float32))))
