"""How large an honest update can be: a public function of the study's own parameters.

The border refuses what is larger. The bound is no defence against poisoning for large models; it
stops accidents and gross lies, and it never refuses honest noise (at most once in 1e9 updates).
Derived here: with momentum m and H steps, the step s gradient enters the update with weight
c_s = lr (1 - m^(H-s+1)) / (1 - m); each step's clipped sum has norm at most C k / B for k sampled
patients, and its noise is N(0, (sigma C / B)^2) in each of d coordinates.
Noise norm: Laurent and Massart 2000, Annals of Statistics 28(5), lemma 1 (chi-square tail).
Sampled patients: Chernoff's bound for a binomial with the site's public size as mean divisor.
An encoding that a study names can raise the norm by `larrey_protocol.encodings.norm_growth`.

A local objective adds a correction to each noised gradient (`Drift`). A pull ``a (w - w_global)``
changes c_s to the response of ``v' = m v - a lr u, u' = u + v'`` after the steps that are left. A
control variate is a mean of noised gradients, so that a site's is at most N / P (N: bound of the
update without it, P = lr times the sum of c_s), and the mean over sites at most the largest of
theirs; ``c - c_i`` then adds P (|c| + |c_i|). A site's gradient term of FedDyn follows
``g' = g - a delta`` with ``delta = N + R g`` (R: lr times the signed sum of c_s), a geometric sum
over the rounds; it adds R |g|. A model of a site's own that is pulled to the mean of all starts its
steps away from that mean and comes ``1 - P`` of the way nearer (``1 - P = pull * R``). All models
begin as one; where each is ``M`` away from there at most, so is their mean, so that a round adds
``|1 - P| 2 M`` to an update, and M grows to ``(|P| + |1 - P|) M + N``. What an encoding rounds
enters all, since they are computed from what the coordinator reads. The tail is then shared by all
sites and rounds of the study.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from larrey_protocol.encodings import BLOCK, norm_growth, worst_error
from larrey_protocol.errors import UsageError
from larrey_protocol.models import model_layout
from larrey_protocol.study import DpSgd, Study

__all__ = ["NO_DRIFT", "Drift", "norm_bound"]

_TAIL = math.log(2e9)  # false refusals of an honest update at most 1e-9, split over two events
_SIZE_SLACK = 4.0  # a site's true cohort may exceed its public bound by this factor


@dataclass(frozen=True, slots=True)
class Drift:
    """What a local objective adds to each noised gradient, as far as an update's size goes.

    Attributes:
        pull: factor of ``w - w_global``, at least 0.
        memory: of the site: ``variate`` is SCAFFOLD's ``c - c_i``; ``gradient`` is FedDyn's
            ``-g_i``, which moves by ``-pull * update`` a round; ``model`` is MR-MTL's own model of
            a site, where its training begins.
        silent: how many values of an update are zero, since their tensors stay at the site.
    """

    pull: float = 0.0
    memory: Literal["", "variate", "gradient", "model"] = ""
    silent: int = 0


NO_DRIFT = Drift()


def norm_bound(study: Study, site: str, phase: str = "train", drift: Drift = NO_DRIFT) -> float:
    """Return the largest L2 norm that an answer of ``site`` may have.

    Args:
        study: as approved.
        site: one that it invites.
        phase: of the round.
        drift: of the study's local objective.

    Raises:
        ValueError: a study with differential privacy has no phase but ``train``.
        UsageError: ``update-unbounded``: local training with this pull runs away.
    """
    privacy, training = study.file.privacy, study.file.training
    if not isinstance(privacy, DpSgd):
        return privacy.max_update_norm
    if phase != "train":
        raise ValueError(f"no noise of this study covers the phase '{phase}'")
    weights = _step_weights(study, drift.pull)
    rounding = 1.01 * norm_growth(training.encoding)  # float32 and the noise grid; the encoding
    if drift.memory == "":
        bound = _noised(study, privacy, site, weights, _TAIL, drift.silent)
    else:
        bound = _remembering(study, privacy, site, weights, drift)
    if not math.isfinite(bound):
        raise UsageError(
            "update-unbounded",
            f"local training runs away: learning rate {training.learning_rate:g} and pull"
            f" {drift.pull:g} over {training.local_steps} steps",
            "Lower the learning rate, or the objective's parameter.",
        )
    return bound * rounding


def _remembering(
    study: Study, privacy: DpSgd, site: str, weights: list[float], drift: Drift
) -> float:
    """Return the bound of an update whose objective remembers earlier ones."""
    training, names = study.file.training, study.file.site_names
    tail = _TAIL + math.log(training.rounds_held * (len(names) + 1))
    path = training.learning_rate * sum(weights)
    block = min(BLOCK, model_layout(study).size)
    lost = worst_error(training.encoding) * math.sqrt(block)  # of a norm, by the encoding
    own = _noised(study, privacy, site, weights, tail, drift.silent)
    if drift.memory == "variate":
        largest = max(_noised(study, privacy, name, weights, tail, drift.silent) for name in names)
        return own + 2 * largest * (1 + lost) / (1 - 2 * lost)
    if drift.memory == "model":
        largest = max(_noised(study, privacy, name, weights, tail, drift.silent) for name in names)
        nearer, away = abs(drift.pull * path), 0.0
        for _ in range(training.rounds_held):
            moved = largest + nearer * 2 * away
            away = (abs(1 - drift.pull * path) + nearer) * away + largest + lost * moved
        return own + nearer * 2 * away
    shrink = abs(1 - drift.pull * path) + drift.pull * lost * abs(path)
    memory, step = 0.0, drift.pull * own * (1 + lost)
    for _ in range(training.rounds_held):
        memory = shrink * memory + step
    return own + abs(path) * memory


def _noised(
    study: Study, privacy: DpSgd, site: str, weights: list[float], tail: float, silent: int
) -> float:
    """Return the bound of what clipped and noised gradients alone move."""
    batch = study.expected_batch(site)
    signal = privacy.clip * _largest_batch(batch, tail) / batch * sum(map(abs, weights))
    spread = privacy.noise_multiplier * privacy.clip / batch
    values = model_layout(study).size - silent
    noise = spread * math.sqrt(sum(w * w for w in weights)) * _chi(values, tail)
    return study.file.training.learning_rate * (signal + noise)


def _step_weights(study: Study, pull: float) -> list[float]:
    """Return how much the gradient of each step moves the parameters, the last step's first."""
    training = study.file.training
    if not pull:
        return [_step_weight(training.momentum, i + 1) for i in range(training.local_steps)]
    weights, velocity, moved = [], 1.0, 1.0
    for _ in range(training.local_steps):
        weights.append(moved)
        velocity = training.momentum * velocity - training.learning_rate * pull * moved
        moved += velocity
    return weights


def _step_weight(momentum: float, remaining: int) -> float:
    """Return how much a step's gradient moves the parameters over ``remaining`` steps."""
    return (1 - momentum**remaining) / (1 - momentum)


def _largest_batch(mean: float, tail: float) -> float:
    """Return patients a step may sample at the tail probability, given the public mean."""
    mean *= _SIZE_SLACK
    return mean + math.sqrt(3 * mean * tail) + tail


def _chi(dimensions: int, tail: float) -> float:
    """Return the quantile of the norm of a standard normal vector at the tail probability."""
    return math.sqrt(dimensions + 2 * math.sqrt(dimensions * tail) + 2 * tail)
