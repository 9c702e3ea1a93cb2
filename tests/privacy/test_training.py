"""Rounds of training: steps, noise, empty draws, aborts, corrections."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from larrey_privacy.noise import NoiseStream
from larrey_privacy.sampler import PoissonSampler
from larrey_privacy.training import TrainingPlan, micro_batches, train_plain, train_round
from larrey_protocol.errors import Refusal, UsageError

PLAN = TrainingPlan(
    local_steps=3,
    learning_rate=0.5,
    momentum=0.9,
    clip=0.5,
    noise_multiplier=2.0,
    sampling_rate=1.0,
    expected_batch=10.0,
    max_rows=3,
    micro_batch=4,
)
COUNTS = [3, 2, 1, 1, 3, 2]


class Counting(NoiseStream):
    """A real stream that remembers how much was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[np.ndarray] = []

    def normal(self, count: int) -> np.ndarray:
        self.drawn.append(super().normal(count))
        return self.drawn[-1]


def run(model, cohort, plan=PLAN, noise=None, correction=None):
    return train_round(
        model,
        cohort,
        plan,
        noise=noise or NoiseStream(),
        sampler=PoissonSampler(),
        correction=correction,
    )


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


@pytest.mark.parametrize("steps", [1, 93, 99, 105])
def test_as_many_steps_are_taken_as_contracted(make_cohort, steps):
    noise = Counting()
    result = run(nn.Linear(5, 1), make_cohort([1] * 8), replace(PLAN, local_steps=steps), noise)
    assert result.steps_done == len(noise.drawn) == steps


def test_an_empty_draw_is_a_step_of_noise_alone(make_cohort):
    noise, model = Counting(), nn.Linear(5, 1)
    plan = replace(PLAN, sampling_rate=1e-15, momentum=0.0)
    result = run(model, make_cohort([1] * 8), plan, noise)
    scale = plan.learning_rate * plan.noise_multiplier * plan.clip / plan.expected_batch
    assert result.steps_done == len(noise.drawn) == 3
    assert result.delta == pytest.approx(-scale * sum(noise.drawn), abs=1e-6)


def test_the_update_is_the_definition_step_by_step(make_cohort):
    """Clipped sum plus noise over the public batch size, momentum from zero, by hand."""
    from larrey_privacy.batch import Batch
    from larrey_privacy.clipping import clipped_sum
    from larrey_privacy.losses import LOSSES

    cohort, model, noise = make_cohort(COUNTS), nn.Linear(5, 1), Counting()
    twin = nn.Linear(5, 1)
    twin.load_state_dict(model.state_dict())
    result = run(model, cohort, noise=noise)
    rows, counts = cohort.rows_of(np.arange(len(COUNTS)))
    batch = Batch(
        torch.from_numpy(cohort.features[rows]),
        torch.from_numpy(cohort.label[rows]),
        torch.from_numpy(counts),
    )
    velocity = np.zeros(6)
    for draw in noise.drawn:
        total = clipped_sum(twin, LOSSES["logistic"], batch, clip=0.5).total.numpy()
        velocity = 0.9 * velocity + (total + 2.0 * 0.5 * draw) / 10.0
        step = torch.from_numpy(0.5 * velocity).float()
        with torch.no_grad():
            twin.weight -= step[:5].view(1, 5)
            twin.bias -= step[5:]
    assert flat(twin) == pytest.approx(flat(model), abs=1e-5)
    assert len(noise.drawn) == 3
    assert result.delta.dtype == np.float32


@pytest.mark.parametrize("micro_batch", [3, 4, 5, 7, 100])
def test_micro_batches_never_split_a_patient(make_cohort, micro_batch):
    cohort = make_cohort(COUNTS)
    draw = PoissonSampler().draw(cohort, rate=1.0, max_rows=3)
    batches = list(micro_batches(nn.Linear(5, 1), cohort, draw, micro_batch))
    assert [count for b in batches for count in b.counts.tolist()] == COUNTS
    assert all(len(b.label) == int(b.counts.sum()) <= micro_batch for b in batches)
    assert torch.equal(
        torch.cat([b.features for b in batches]), torch.from_numpy(cohort.features[draw.rows])
    )


@pytest.mark.parametrize("micro_batch", [3, 5, 100])
def test_the_cut_into_micro_batches_does_not_change_the_update(make_cohort, micro_batch):
    cohort, model = make_cohort(COUNTS), nn.Linear(5, 1)
    noise = NoiseStream(bytes)
    twin = nn.Linear(5, 1)
    twin.load_state_dict(model.state_dict())
    one = run(model, cohort, replace(PLAN, micro_batch=micro_batch), noise)
    two = run(twin, cohort, PLAN, NoiseStream(bytes))
    assert one.delta == pytest.approx(two.delta, abs=1e-6)


class Breaking(nn.Module):
    """A model that fails in a chosen forward pass, as a full disk or a deadline would."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 1)
        self.left = -1

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        outputs = self.inner(features)
        if self.left == 0:
            raise OSError("stopped")
        return outputs


@pytest.mark.parametrize("index", range(1, 10))
def test_an_abort_at_any_micro_batch_leaves_the_next_round_clean(make_cohort, index):
    cohort, model = make_cohort(COUNTS), Breaking()
    start = flat(model)
    model.left = index
    with pytest.raises(OSError, match="stopped"):
        run(model, cohort)
    assert (flat(model) == start).all()
    assert not any(hasattr(m, "activations") for m in model.modules())
    fresh = Breaking()
    fresh.load_state_dict(model.state_dict())
    stuck = [NoiseStream(bytes) for _ in range(2)]
    after, expected = run(model, cohort, noise=stuck[0]), run(fresh, cohort, noise=stuck[1])
    assert (after.delta == expected.delta).all()


def test_a_correction_is_added_after_the_noise(make_cohort):
    cohort = make_cohort(COUNTS)
    model, twin = nn.Linear(5, 1), nn.Linear(5, 1)
    twin.load_state_dict(model.state_dict())
    plan = replace(PLAN, local_steps=1)
    push = np.full(6, 100.0, dtype=np.float32)
    stuck = [NoiseStream(bytes) for _ in range(2)]
    pushed = run(model, cohort, plan, stuck[0], lambda now, start: push + (now - start))
    plain = run(twin, cohort, plan, stuck[1])
    # Far above the clipping norm, and still there in full: it was not clipped.
    assert pushed.delta - plain.delta == pytest.approx(-0.5 * push, rel=1e-5)


def test_two_rounds_from_one_model_carry_different_noise(make_cohort):
    cohort, deltas = make_cohort([1] * 4, shape=(3000,)), []
    noise = NoiseStream()
    for _ in range(2):
        model = nn.Linear(3000, 1)
        torch.nn.init.zeros_(model.weight)
        torch.manual_seed(42)
        plan = replace(PLAN, sampling_rate=1e-15, noise_multiplier=5.0)
        deltas.append(run(model, cohort, plan, noise).delta)
    assert abs(np.corrcoef(*deltas)[0, 1]) < 0.12


def test_training_without_noise_is_refused(make_cohort):
    with pytest.raises(Refusal, match="noise-missing"):
        run(nn.Linear(5, 1), make_cohort([1] * 4), replace(PLAN, noise_multiplier=0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"local_steps": 0},
        {"clip": 0.0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"sampling_rate": 0.0},
        {"expected_batch": 0.0},
        {"max_rows": 5},
    ],
)
def test_an_impossible_plan_cannot_be_made(change):
    with pytest.raises(UsageError, match="plan-impossible"):
        replace(PLAN, **change)


def test_an_unknown_loss_is_refused(make_cohort):
    with pytest.raises(UsageError, match="unknown-loss"):
        run(nn.Linear(5, 1), make_cohort([1] * 4), replace(PLAN, loss="hinge"))


def test_plain_training_is_ordinary_gradient_descent(make_cohort):
    cohort, model = make_cohort([1] * 20), nn.Linear(5, 1)
    twin = nn.Linear(5, 1)
    twin.load_state_dict(model.state_dict())
    result = train_plain(model, cohort, PLAN, sampler=PoissonSampler())
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5, momentum=0.9)
    features, label = torch.from_numpy(cohort.features), torch.from_numpy(cohort.label)
    for _ in range(3):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(twin(features)[:, 0], label)
        loss.backward()
        optimizer.step()
    assert flat(model) == pytest.approx(flat(twin), abs=1e-6)
    assert result.steps_done == 3


def test_private_training_learns_where_there_is_something_to_learn(make_cohort):
    cohort = make_cohort([1] * 400)
    cohort.label[:] = cohort.features[:, 0] > 0
    plan = TrainingPlan(20, 2.0, 0.9, 0.5, 4.0, 1.0, 400.0)
    model = nn.Linear(5, 1)
    run(model, cohort, plan)
    outputs = model(torch.from_numpy(cohort.features))[:, 0].detach().numpy()
    assert ((outputs > 0) == cohort.label).mean() > 0.9


def test_linear_models_train_without_importing_opacus():
    code = """
import sys, numpy as np
from torch import nn
from larrey_privacy.cohort import Cohort
from larrey_privacy.noise import NoiseStream
from larrey_privacy.sampler import PoissonSampler
from larrey_privacy.training import TrainingPlan, train_round
cohort = Cohort(np.ones((4, 3), np.float32), np.ones(4, np.float32), np.arange(4))
plan = TrainingPlan(1, 1.0, 0.0, 1.0, 1.0, 1.0, 4.0)
train_round(nn.Linear(3, 1), cohort, plan, noise=NoiseStream(), sampler=PoissonSampler())
sys.exit("opacus" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
