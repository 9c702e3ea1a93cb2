"""One round of local training: DP-SGD over patients, and its plain counterpart.

H steps of stochastic gradient descent with momentum from the model's own parameters. A private
step: Poisson draw of patients, sum of clipped patient gradients, Gaussian noise on that sum, public
grid, division by the public expected batch size; a strategy's correction is added after the noise.
An empty draw is a step of noise alone. Momentum starts at zero each round: it only processes
outputs that were noised.

Does not account, store or send; the reservation is durable before this is called.
Privacy: unit patient, add/remove, Poisson-subsampled Gaussian, steps = ``local_steps``.
Source: Abadi et al. 2016 (arXiv 1607.00133); departures in ``clipping``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from larrey_privacy.batch import Batch, owners, trainable
from larrey_privacy.clipping import ClippedSum, clip_batch, clipped_sum, gradient_source
from larrey_privacy.cohort import Cohort
from larrey_privacy.hook_gradients import round_reset
from larrey_privacy.losses import LOSSES, RowLoss, loss_named
from larrey_privacy.noise import NoiseStream, grid_of, round_to_grid
from larrey_privacy.sampler import Draw, PoissonSampler
from larrey_protocol.errors import Refusal, UsageError
from larrey_protocol.waypoints import reached

__all__ = [
    "LOSSES",
    "Batch",
    "ClippedSum",
    "Correction",
    "TrainedRound",
    "TrainingPlan",
    "clipped_sum",
    "micro_batches",
    "train_plain",
    "train_round",
    "trainable",
]

Vector = NDArray[np.float32]
Correction = Callable[[Vector, Vector], Vector]
"""Takes the parameters now and at the round's start, gives an addition to the gradient."""

_Gradient = Callable[[], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a round does, from the signed study; every number is public.

    Attributes:
        local_steps: steps a round (H).
        learning_rate: > 0.
        momentum: in [0, 1), reset each round.
        clip: clipping norm (C), > 0.
        noise_multiplier: sigma; 0 only for plain training.
        sampling_rate: q, in (0, 1].
        expected_batch: public expected number of patients in a step (B).
        max_rows: most rows of one patient in a step.
        micro_batch: most rows held at once; a patient is never split, so at least max_rows.
        loss: a name in ``LOSSES``.

    Raises:
        UsageError: ``plan-impossible``.
    """

    local_steps: int
    learning_rate: float
    momentum: float
    clip: float
    noise_multiplier: float
    sampling_rate: float
    expected_batch: float
    max_rows: int = 1
    micro_batch: int = 512
    loss: str = "logistic"

    def __post_init__(self) -> None:
        numbers = (self.learning_rate, self.clip, self.noise_multiplier, self.expected_batch)
        is_possible = (
            self.local_steps >= 1
            and all(math.isfinite(number) for number in numbers)
            and min(self.learning_rate, self.clip, self.expected_batch) > 0
            and self.noise_multiplier >= 0
            and 0 <= self.momentum < 1
            and 0 < self.sampling_rate <= 1
            and 1 <= self.max_rows <= self.micro_batch
        )
        if not is_possible:
            raise UsageError("plan-impossible", f"a value is outside its range: {self}.")


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRound:
    """A round's result.

    Attributes:
        delta: float32 flat, parameters after minus before, in the order of ``trainable(model)``.
        steps_done: steps taken, empty draws included; equals the plan's.
    """

    delta: Vector
    steps_done: int


def train_round(
    model: nn.Module,
    cohort: Cohort,
    plan: TrainingPlan,
    *,
    noise: NoiseStream,
    sampler: PoissonSampler,
    correction: Correction | None = None,
) -> TrainedRound:
    """Return the noised update of one round of DP-SGD; the model holds the trained parameters.

    After an error the model is as it was. ``noise`` is bound to the reservation by its owner.

    Raises:
        Refusal: ``noise-missing`` when the plan adds no noise.
        UsageError: ``unknown-loss``.
    """
    if plan.noise_multiplier <= 0:
        raise Refusal("noise-missing", "private training needs a noise multiplier above 0.")
    loss = loss_named(plan.loss)
    scale = plan.noise_multiplier * plan.clip
    # Bound of a coordinate of the noised sum: four times the expected batch, and 9 sigma.
    grid = grid_of(plan.clip, 4 * plan.clip * plan.expected_batch + 9 * scale)
    size = sum(p.numel() for p in trainable(model))

    with _prepared(model), gradient_source(model, cohort.features.ndim) as source:

        def gradient() -> NDArray[np.float64]:
            draw = sampler.draw(cohort, rate=plan.sampling_rate, max_rows=plan.max_rows)
            total = scale * noise.normal(size)
            for batch in micro_batches(model, cohort, draw, plan.micro_batch):
                total += clip_batch(source, loss, batch, clip=plan.clip).total.cpu().numpy()
            return round_to_grid(total, grid) / plan.expected_batch

        return _descend(model, plan, gradient, correction)


def train_plain(
    model: nn.Module,
    cohort: Cohort,
    plan: TrainingPlan,
    *,
    sampler: PoissonSampler,
    correction: Correction | None = None,
) -> TrainedRound:
    """Return the update of one round without clipping or noise: no privacy at all.

    The gradient is the mean over the drawn patients of their mean gradients.

    Raises:
        UsageError: ``unknown-loss``.
    """
    loss = loss_named(plan.loss)

    with _prepared(model):

        def gradient() -> NDArray[np.float64]:
            draw = sampler.draw(cohort, rate=plan.sampling_rate, max_rows=plan.max_rows)
            total = np.zeros(sum(p.numel() for p in trainable(model)))
            for batch in micro_batches(model, cohort, draw, plan.micro_batch):
                total += _plain_sum(model, loss, batch)
            return total / max(len(draw.counts), 1)

        return _descend(model, plan, gradient, correction)


def micro_batches(model: nn.Module, cohort: Cohort, draw: Draw, most_rows: int) -> Iterator[Batch]:
    """Give the drawn rows in batches of at most ``most_rows``, cut between patients only."""
    device = next(model.parameters()).device
    ends = np.cumsum(draw.counts)
    first, done = 0, 0
    while first < len(ends):
        last = int(np.searchsorted(ends, done + most_rows, side="right"))
        rows = draw.rows[done : ends[last - 1]]
        yield Batch(
            features=torch.from_numpy(cohort.features[rows]).to(device),
            label=torch.from_numpy(cohort.label[rows]).to(device),
            counts=torch.from_numpy(draw.counts[first:last]).to(device),
        )
        first, done = last, int(ends[last - 1])


def _descend(
    model: nn.Module, plan: TrainingPlan, gradient: _Gradient, correction: Correction | None
) -> TrainedRound:
    """Take the plan's steps with heavy-ball momentum, parameters kept in float64."""
    start = _flat(model)
    now = start.astype(np.float64)
    velocity = np.zeros_like(now)
    for _ in range(plan.local_steps):
        step = gradient()
        if correction is not None:
            step += correction(now.astype(np.float32), start)
        velocity *= plan.momentum
        velocity += step
        now -= plan.learning_rate * velocity
        _load(model, now)
        reached("trainer.step-done")
    return TrainedRound((now - start).astype(np.float32), plan.local_steps)


@contextmanager
def _prepared(model: nn.Module) -> Iterator[None]:
    """Put the model in training mode, clean; after an error, give it its parameters back."""
    start = _flat(model)
    round_reset(model)
    model.train()
    try:
        yield
    except BaseException:
        _load(model, start)
        raise
    finally:
        round_reset(model)


def _plain_sum(model: nn.Module, loss: RowLoss, batch: Batch) -> NDArray[np.float64]:
    weights = (1.0 / batch.counts)[owners(batch.counts)]
    total = (loss(model(batch.features), batch.label) * weights).sum()
    parts = torch.autograd.grad(total, trainable(model))
    return _numpy(torch.cat([part.flatten() for part in parts]).double())


def _flat(model: nn.Module) -> Vector:
    flat = torch.cat([p.detach().flatten() for p in trainable(model)]).float()
    return flat.cpu().numpy().copy()


def _load(model: nn.Module, values: NDArray[np.floating]) -> None:
    source = torch.from_numpy(values)
    done = 0
    with torch.no_grad():
        for parameter in trainable(model):
            part = source[done : done + parameter.numel()]
            parameter.copy_(part.view_as(parameter))
            done += parameter.numel()


def _numpy(tensor: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = tensor.detach().cpu().numpy()
    return values
