"""Every algorithm with parameters that it runs with: the one list of the contract suite."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from larrey_strategies import combining
from larrey_strategies.contract import RoundFacts
from larrey_strategies.registry import (
    AGGREGATORS,
    OBJECTIVES,
    OPTIMIZERS,
    PRESETS,
    Algorithm,
    AlgorithmWords,
    make_algorithm,
)

PARAMETERS: dict[str, dict[str, float]] = {
    "fedprox": {"mu": 0.1},
    "fedadagrad": {"eta": 0.3},
    "fedadam": {"eta": 0.05},
    "fedyogi": {"eta": 0.05},
    "feddyn": {"alpha": 1.0},
    "mr-mtl": {"lambda": 0.5},
    "trimmed-mean": {"beta": 0.34},
    "krum": {"f": 1},
    "multi-krum": {"f": 1, "m": 2},
    "centered-clipping": {"tau": 2.0},
    "norm-bounding": {"bound": 5.0},
}
ROBUST = tuple(name for name in AGGREGATORS if name != "mean")
FACTS = RoundFacts(local_steps=5, learning_rate=0.1)


def words(name: str) -> AlgorithmWords:
    return AlgorithmWords(name, PARAMETERS.get(name, {}))


def words_of_parts(objective: str, aggregator: str, optimizer: str) -> AlgorithmWords:
    parameters = PARAMETERS.get(objective, {}) | PARAMETERS.get(optimizer, {})
    own = PARAMETERS.get(aggregator, {})
    return AlgorithmWords("fedavg", parameters, objective, aggregator, optimizer, own)


def all_parts() -> list[tuple[str, str, str]]:
    return [(o, a, s) for o in OBJECTIVES for a in AGGREGATORS for s in OPTIMIZERS]


def every_algorithm() -> dict[str, Algorithm]:
    return {name: make_algorithm(words(name)) for name in PRESETS}


def vector(seed: int, size: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def aggregate(algorithm: Algorithm, updates: list[np.ndarray], weights: list[float]) -> np.ndarray:
    return combining.aggregate(algorithm.aggregator, updates, weights)


def cut(array: np.ndarray, edges: list[int]) -> list[np.ndarray]:
    return [array[a:b] for a, b in pairwise(edges)]
