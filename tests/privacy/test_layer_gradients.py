"""The exact path for networks of known layers: against a plain loop, and where it is not taken."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from larrey_privacy.batch import Batch
from larrey_privacy.blocks import Picture, Residual
from larrey_privacy.clipping import clip_batch, clipped_sum
from larrey_privacy.layer_gradients import layered
from larrey_privacy.losses import LOSSES
from larrey_protocol.errors import UsageError
from tests.privacy.plain_loop import batch_of, by_hand

LOSS = LOSSES["cross-entropy"]
SHAPE = (192,)


def cnn() -> nn.Module:
    return nn.Sequential(
        Picture(8, 8, 3), nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 2),
    )  # fmt: skip


def resnet() -> nn.Module:
    plain = Residual({"norm": nn.GroupNorm(2, 4), "conv": nn.Conv2d(4, 4, 3, padding=1)}, deep=2)
    deep = {
        "norm": nn.GroupNorm(2, 4), "act": nn.ReLU(), "conv": nn.Conv2d(4, 6, 3, 2, padding=1),
        "shortcut": nn.Conv2d(4, 6, 1, 2),
    }  # fmt: skip
    return nn.Sequential(
        Picture(8, 8, 3), nn.Conv2d(3, 4, 3, padding=1), plain, Residual(deep, deep=3),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(6, 2),
    )  # fmt: skip


@pytest.mark.parametrize("make", [cnn, resnet])
@pytest.mark.parametrize("counts", [[1] * 6, [3, 2, 1, 4, 1, 1], [1], [4]])
@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("piece", [1, 1 << 14, 1 << 22])
def test_norms_factors_and_sum_are_those_of_a_plain_loop(make, counts, kept, piece):
    torch.manual_seed(1)
    model, batch = make(), batch_of(counts, SHAPE)
    total, norms = by_hand(model, LOSS, batch, 0.3)
    source = replace(layered(model, 2), kept_bytes=kept, piece_bytes=piece)
    result = clip_batch(source, LOSS, batch, clip=0.3)
    assert torch.allclose(result.norms, norms, rtol=1e-5)
    assert torch.allclose(result.factors, (0.3 / (norms + 1e-6)).clamp(max=1.0), rtol=1e-5)
    assert (result.total - total).norm() <= 1e-5 * total.norm()


@pytest.mark.parametrize("make", [cnn, resnet])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_a_bad_record_costs_exactly_its_own_patient(make, bad, kept):
    torch.manual_seed(2)
    model, batch = make(), batch_of([2, 1, 3], SHAPE)
    batch.features[0, 2] = bad
    rest = Batch(batch.features[2:], batch.label[2:], batch.counts[1:])
    source = replace(layered(model, 2), kept_bytes=kept)
    result = clip_batch(source, LOSS, batch, clip=0.5)
    others = clip_batch(source, LOSS, rest, clip=0.5)
    assert torch.isfinite(result.total).all()
    assert (result.total - others.total).norm() <= 0.5 * (1 + 1e-6)
    if not math.isfinite(float(result.norms[0])):
        assert result.factors[0] == 0
        assert torch.allclose(result.total, others.total, atol=1e-6)


def test_known_networks_take_this_path_and_leave_nothing_behind():
    model, batch = resnet(), batch_of([1, 2], SHAPE)
    assert layered(model, 2) is not None
    clipped_sum(model, LOSS, batch, clip=1.0)
    assert all(p.grad is None and not vars(p) for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


class Odd(nn.Sequential):
    """A subclass may compute anything."""


def twice() -> nn.Module:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(layer, nn.ReLU(), layer)


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    model[0].weight.requires_grad = False
    return model


@pytest.mark.parametrize(
    "model",
    [
        twice(),
        frozen(),
        Odd(nn.Conv2d(3, 3, 3)),
        nn.Sequential(nn.Conv2d(3, 3, 3, groups=3)),
        nn.Sequential(nn.Conv2d(3, 3, 3, padding_mode="reflect")),
        nn.Sequential(nn.Conv2d(3, 3, 3, padding="same")),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.Linear(6, 2)),
        nn.Sequential(nn.Conv2d(3, 3, 3).double()),
        nn.Sequential(nn.LSTM(3, 3)),
    ],
)
def test_whatever_is_not_known_is_left_to_the_general_path(model):
    assert layered(model, 4) is None
    with pytest.raises(UsageError, match="not-layered"):
        clipped_sum(model, LOSS, batch_of([1], SHAPE), clip=1.0, mode="layers")
