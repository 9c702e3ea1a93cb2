"""Models and losses in which patients do not stand alone are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from larrey_privacy.admission import admit
from larrey_privacy.losses import LOSSES
from larrey_protocol.errors import Refusal

CROSS_ENTROPY = LOSSES["cross-entropy"]


def frozen_norm() -> nn.Module:
    norm = nn.BatchNorm1d(5)
    for parameter in norm.parameters():
        parameter.requires_grad = False
    return norm


class Remembering(nn.Module):
    """A layer of no known type that keeps a mean of what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.seen = 0.9 * self.seen + 0.1 * features.detach().mean(0)
        return features


class Centred(nn.Module):
    """A layer without any buffer that subtracts the batch's mean."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features - features.mean(0)


MEMORIES = {
    "batch norm": nn.BatchNorm1d(5),
    "frozen batch norm": frozen_norm(),
    "batch norm without parameters": nn.BatchNorm1d(5, affine=False),
    "batch norm without statistics": nn.BatchNorm1d(5, track_running_stats=False),
    "synchronised batch norm": nn.SyncBatchNorm(5),
    "spectral norm": nn.utils.spectral_norm(nn.Linear(5, 5)),
    "parametrised spectral norm": nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5)),
    "unknown layer": Remembering(),
}


def test_a_model_whose_parameters_are_all_zero_is_tried_with_others_and_left_as_it_was():
    model = nn.Sequential(Centred(), nn.Linear(5, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with pytest.raises(Refusal, match="model-couples-patients"):
        admit(model, CROSS_ENTROPY, row_shape=(5,))
    assert not any(parameter.any() for parameter in model.parameters())


def test_a_buffer_that_came_to_rest_is_still_found():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5)))
    for _ in range(300):
        model(torch.zeros(1, 5))
    with pytest.raises(Refusal, match="model-buffers"):
        admit(model, CROSS_ENTROPY, row_shape=(5,))


@pytest.mark.parametrize("name", MEMORIES)
def test_a_model_that_remembers_rows_is_refused(name):
    model = nn.Sequential(MEMORIES[name], nn.Linear(5, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(Refusal, match="model-buffers"):
        admit(model, CROSS_ENTROPY, row_shape=(5,))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_model_that_mixes_rows_without_a_buffer_is_refused():
    with pytest.raises(Refusal, match="model-couples-patients"):
        admit(nn.Sequential(Centred(), nn.Linear(5, 2)), CROSS_ENTROPY, row_shape=(5,))


def class_weighted_mean(outputs, label):
    weight = torch.tensor([1.0, 4.0])
    return functional.cross_entropy(outputs, label.long(), weight=weight)


def hidden_class_weighted_mean(outputs, label):
    """The same coupling with one number per row, so that its shape gives nothing away."""
    weight = torch.tensor([1.0, 4.0])[label.long()]
    losses = functional.cross_entropy(outputs, label.long(), reduction="none")
    return weight * losses / weight.sum()


def batch_mean(outputs, label):
    return CROSS_ENTROPY(outputs, label) / len(label)


def contrastive(outputs, label):
    distance = (outputs[:, None] - outputs[None]).square().sum(2)
    return (distance * (label[:, None] == label[None])).sum(1)


def partial_likelihood(outputs, label):
    risk = outputs[:, 0]
    return label * (torch.logcumsumexp(risk, 0) - risk)


@pytest.mark.parametrize(
    "loss",
    [class_weighted_mean, hidden_class_weighted_mean, batch_mean, contrastive, partial_likelihood],
)
def test_a_loss_that_mixes_patients_is_refused(loss):
    with pytest.raises(Refusal, match="loss-couples-patients"):
        admit(nn.Linear(5, 2), loss, row_shape=(5,))


class Constant(nn.Module):
    """A layer with a buffer that never changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.ones(5))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.offset


ADMITTED = [
    (nn.Sequential(Constant(), nn.Linear(5, 1)), "logistic", (5,)),
    (nn.Linear(5, 1), "logistic", (5,)),
    (nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 2)), "cross-entropy", (5,)),
    (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 2)),
        "cross-entropy",
        (1, 6, 6),
    ),
]


@pytest.mark.parametrize(("model", "loss", "shape"), ADMITTED)
def test_a_model_in_which_patients_stand_alone_is_admitted(model, loss, shape):
    state = torch.random.get_rng_state()
    model.eval()
    admit(model, LOSSES[loss], row_shape=shape)
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)
