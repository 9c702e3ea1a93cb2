"""Every loss: one number a row, what its formula says, and clipped patient by patient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from larrey_privacy.admission import admit
from larrey_privacy.batch import Batch
from larrey_privacy.clipping import clipped_sum
from larrey_privacy.losses import LOSSES
from tests.privacy.plain_loop import by_hand

OUTPUTS = {"logistic": 1, "cross-entropy": 3, "squared": 1, "huber": 1, "discrete-time": 4}
VALUES = {
    "logistic": (0.0, 1.0),
    "cross-entropy": (0.0, 1.0, 2.0),
    "squared": (-2.0, 0.3, 10.0),
    "huber": (-2.0, 0.3, 10.0),
    "discrete-time": tuple(map(float, range(9))),
}


def rows_of(name: str, rows: int = 18) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    label = torch.tensor(VALUES[name])[torch.arange(rows) % len(VALUES[name])]
    return torch.randn(rows, OUTPUTS[name], generator=generator), label


def hazard_loss(logits: list[float], label: float) -> float:
    """The likelihood of discrete times, one patient and interval at a time."""
    lived, event = divmod(int(label), 2)
    hazards = [1 / (1 + math.exp(-z)) for z in logits]
    likelihood = math.prod(1 - h for h in hazards[:lived])
    return -math.log(likelihood * (hazards[lived] if event else 1))


def test_all_losses_are_tried() -> None:
    assert set(OUTPUTS) == set(LOSSES)


def test_discrete_times_have_the_likelihood_of_a_plain_loop() -> None:
    outputs, label = rows_of("discrete-time")
    expected = [hazard_loss(z, y) for z, y in zip(outputs.tolist(), label.tolist(), strict=True)]
    assert LOSSES["discrete-time"](outputs, label).tolist() == pytest.approx(expected, rel=1e-5)


def test_one_interval_without_censoring_is_the_logistic_loss() -> None:
    outputs, label = rows_of("logistic")
    times = torch.where(label > 0, 1.0, 2.0)  # event in the interval, or lived through it
    assert torch.allclose(
        LOSSES["discrete-time"](outputs, times), LOSSES["logistic"](outputs, label)
    )


def test_who_was_lost_before_the_first_middle_teaches_nothing() -> None:
    outputs = torch.randn(3, 4, requires_grad=True)
    LOSSES["discrete-time"](outputs, torch.zeros(3)).sum().backward()
    assert not outputs.grad.any()


def test_classes_have_the_log_loss_of_scikit_learn() -> None:
    for name in ("logistic", "cross-entropy"):
        outputs, label = rows_of(name)
        wide = outputs if name == "cross-entropy" else torch.cat([0 * outputs, outputs], dim=1)
        shares = torch.softmax(wide.double(), dim=1).numpy()
        mean = float(LOSSES[name](outputs, label).mean())
        assert mean == pytest.approx(log_loss(label.numpy(), shares), rel=1e-6)


def test_numbers_are_squared_near_and_linear_far_under_huber() -> None:
    outputs, label = torch.zeros(3, 1), torch.tensor([0.5, -1.0, 10.0])
    assert LOSSES["squared"](outputs, label).tolist() == [0.125, 0.5, 50.0]
    assert LOSSES["huber"](outputs, label).tolist() == [0.125, 0.5, 9.5]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("hidden", [0, 7])
def test_patients_are_clipped_alone_under_every_loss(name: str, hidden: int) -> None:
    torch.manual_seed(2)
    layers = [nn.Linear(5, hidden), nn.Tanh()] if hidden else []
    model = nn.Sequential(*layers, nn.Linear(hidden or 5, OUTPUTS[name]))
    _, label = rows_of(name)
    counts = torch.tensor([1, 3, 2, 4, 1, 6, 1])
    batch = Batch(torch.randn(18, 5), label, counts)
    total, norms = by_hand(model, LOSSES[name], batch, 0.4)
    for mode in ("linear", "hooks"):
        result = clipped_sum(model, LOSSES[name], batch, clip=0.4, mode=mode)
        assert torch.allclose(result.norms, norms, rtol=1e-4, atol=1e-6)
        assert torch.allclose(result.total, total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_loss_is_one_of_patients_who_stand_alone(name: str) -> None:
    admit(nn.Linear(5, OUTPUTS[name]), LOSSES[name], row_shape=(5,), labels=VALUES[name])


def test_no_loss_is_infinite_for_outputs_of_a_diverged_model() -> None:
    for name in OUTPUTS:
        outputs, label = rows_of(name)
        assert np.isfinite(LOSSES[name](1e4 * outputs, label).numpy()).all()
