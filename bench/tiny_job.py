"""The tiny job of the simulation bench: logistic regression in numpy, 10,000 parameters.

One step of full-batch gradient descent at each site, on rows of its own. Imports numpy alone, so
that every simulator of the comparison runs these very functions.
"""

from __future__ import annotations

from functools import cache

import numpy as np

PARAMETERS, ROWS, SITES_WITH_ROWS = 10_000, 8, 100  # more sites than that share rows
RATE = 0.1


@cache
def rows_of(site: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a site's features, the last column ones, and labels; ``site`` < SITES_WITH_ROWS."""
    random = np.random.Generator(np.random.PCG64(site))
    features = random.standard_normal((ROWS, PARAMETERS), dtype=np.float32) / 100
    features[:, -1] = 1
    return features, (random.random(ROWS) < 0.5).astype(np.float32)


def update(model: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return local minus global model."""
    residual = 1 / (1 + np.exp(-(features @ model))) - labels
    return (-RATE / len(labels)) * (residual @ features)


def median_seconds(seconds: list[float]) -> float:
    """Return the median without the first, which warms caches."""
    return float(np.median(seconds[1:]))
