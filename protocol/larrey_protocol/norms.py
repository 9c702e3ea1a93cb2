"""How large an honest update can be: a public function of the study's own parameters.

The border refuses what is larger. The bound is no defence against poisoning for large models; it
stops accidents and gross lies, and it never refuses honest noise (at most once in 1e9 updates).
Derived here: with momentum m and H steps, the step s gradient enters the update with weight
c_s = lr (1 - m^(H-s+1)) / (1 - m); each step's clipped sum has norm at most C k / B for k sampled
patients, and its noise is N(0, (sigma C / B)^2) in each of d coordinates.
Noise norm: Laurent and Massart 2000, Annals of Statistics 28(5), lemma 1 (chi-square tail).
Sampled patients: Chernoff's bound for a binomial with the site's public size as mean divisor.
An encoding that a study names can raise the norm by `larrey_protocol.encodings.norm_growth`.
"""

from __future__ import annotations

import math

from larrey_protocol.encodings import norm_growth
from larrey_protocol.models import model_layout
from larrey_protocol.study import DpSgd, Study

__all__ = ["norm_bound"]

_TAIL = math.log(2e9)  # false refusals of an honest update at most 1e-9, split over two events
_SIZE_SLACK = 4.0  # a site's true cohort may exceed its public bound by this factor


def norm_bound(study: Study, site: str, phase: str = "train") -> float:
    """Return the largest L2 norm that an answer of ``site`` may have.

    Raises:
        ValueError: a study with differential privacy has no phase but ``train``.
    """
    privacy, training = study.file.privacy, study.file.training
    if not isinstance(privacy, DpSgd):
        return privacy.max_update_norm
    if phase != "train":
        raise ValueError(f"no noise of this study covers the phase '{phase}'")
    batch = study.expected_batch(site)
    weights = [_step_weight(training.momentum, i + 1) for i in range(training.local_steps)]
    signal = privacy.clip * _largest_batch(batch) / batch * sum(weights)
    spread = privacy.noise_multiplier * privacy.clip / batch
    noise = spread * math.sqrt(sum(w * w for w in weights)) * _chi(model_layout(study).size)
    rounding = 1.01 * norm_growth(training.encoding)  # float32 and the noise grid; the encoding
    return training.learning_rate * (signal + noise) * rounding


def _step_weight(momentum: float, remaining: int) -> float:
    """Return how much a step's gradient moves the parameters over ``remaining`` steps."""
    return (1 - momentum**remaining) / (1 - momentum)


def _largest_batch(mean: float) -> float:
    """Return patients a step may sample at the tail probability, given the public mean."""
    mean *= _SIZE_SLACK
    return mean + math.sqrt(3 * mean * _TAIL) + _TAIL


def _chi(dimensions: int) -> float:
    """Return the quantile of the norm of a standard normal vector at the tail probability."""
    return math.sqrt(dimensions + 2 * math.sqrt(dimensions * _TAIL) + 2 * _TAIL)
