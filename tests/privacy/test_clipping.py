"""Patient norms and clipped sums against a plain loop, Opacus and bad records."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from larrey_privacy.batch import Batch
from larrey_privacy.clipping import clipped_sum
from larrey_privacy.linear_gradients import linear_chain
from larrey_privacy.losses import LOSSES
from larrey_protocol.errors import UsageError
from tests.privacy.plain_loop import batch_of, by_hand

CROSS_ENTROPY, LOGISTIC = LOSSES["cross-entropy"], LOSSES["logistic"]


class Wrapped(nn.Module):
    """A chain that the closed form does not recognise."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.inner(features)


def logistic() -> nn.Module:
    return nn.Linear(5, 1)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 8),
        nn.ReLU(),
        nn.Linear(8, 6, bias=False),
        nn.Tanh(),
        nn.Sequential(nn.Linear(6, 2)),
    )


def image_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.GELU(), nn.Linear(7, 2))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    )


class ChannelsFirst(nn.Module):
    """What hands on images whose channels still lie last in memory."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.permute(0, 3, 1, 2)


def channels_last_cnn() -> nn.Module:
    return nn.Sequential(
        ChannelsFirst(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(),
        nn.Conv2d(4, 2, 3, stride=2), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


ARCHITECTURES = {
    "channels-last-cnn": (channels_last_cnn, (6, 6, 3), CROSS_ENTROPY, "hooks"),
    "logistic": (logistic, (5,), LOGISTIC, "linear"),
    "mlp": (mlp, (5,), CROSS_ENTROPY, "linear"),
    "image-mlp": (image_mlp, (1, 6, 6), CROSS_ENTROPY, "linear"),
    "cnn": (cnn, (1, 6, 6), CROSS_ENTROPY, "hooks"),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("counts", [[1] * 6, [3, 2, 1, 4, 1, 1], [1], [4]])
@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
def test_every_path_gives_the_sum_and_norms_of_a_plain_loop(name, counts, clip):
    torch.manual_seed(1)
    make, shape, loss, fastest = ARCHITECTURES[name]
    model, batch = make(), batch_of(counts, shape)
    total, norms = by_hand(model, loss, batch, clip)
    for mode in {fastest, "hooks", "auto"}:
        result = clipped_sum(model, loss, batch, clip=clip, mode=mode)
        assert torch.allclose(result.norms, norms, rtol=1e-5, atol=1e-7)
        assert torch.allclose(result.total, total, rtol=1e-5, atol=1e-6)
        assert result.total.norm() <= clip * len(counts)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=9), st.integers(0, 1000))
def test_closed_form_norms_are_those_of_opacus_for_any_grouping(counts, seed):
    torch.manual_seed(seed)
    model, batch = mlp(), batch_of(counts, (5,), seed)
    linear = clipped_sum(model, CROSS_ENTROPY, batch, clip=0.3, mode="linear")
    hooks = clipped_sum(model, CROSS_ENTROPY, batch, clip=0.3, mode="hooks")
    assert torch.allclose(linear.norms, hooks.norms, rtol=1e-5, atol=1e-7)
    assert torch.allclose(linear.factors, hooks.factors, rtol=1e-5)
    assert torch.allclose(linear.total, hooks.total, atol=1e-6)


@pytest.mark.parametrize("mode", ["linear", "hooks"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, 3e38])
@pytest.mark.parametrize("counts", [[1] * 6, [3, 2, 1]])
def test_a_bad_record_costs_at_most_its_own_patient(mode, bad, counts):
    torch.manual_seed(2)
    model, batch = mlp(), batch_of(counts, (5,))
    clean = clipped_sum(model, CROSS_ENTROPY, batch, clip=0.5, mode=mode)
    batch.features[0, 2] = bad
    result = clipped_sum(model, CROSS_ENTROPY, batch, clip=0.5, mode=mode)
    assert result.total.isfinite().all()
    assert torch.equal(result.factors[1:] > 0, clean.factors[1:] > 0)
    if not math.isfinite(bad):
        assert result.factors[0] == 0
    # Twice the norm: the patient's own part is replaced, nobody else's changes.
    assert (result.total - clean.total).norm() <= 2 * 0.5 + 1e-6


@pytest.mark.parametrize("mode", ["linear", "hooks"])
def test_a_batch_of_bad_records_alone_adds_exactly_nothing(mode):
    batch = batch_of([1, 2], (5,))
    batch.features[:] = math.nan
    result = clipped_sum(mlp(), CROSS_ENTROPY, batch, clip=0.5, mode=mode)
    assert result.total.abs().sum() == 0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=6),
    st.floats(0.01, 5.0),
    st.floats(-30, 30),
    st.sampled_from(["linear", "hooks"]),
)
def test_removing_a_patient_moves_the_sum_by_at_most_the_norm(counts, clip, scale, mode):
    torch.manual_seed(0)
    model, batch = mlp(), batch_of(counts, (5,))
    batch.features[: counts[0]] *= scale
    rest = Batch(batch.features[counts[0] :], batch.label[counts[0] :], batch.counts[1:])
    full = clipped_sum(model, CROSS_ENTROPY, batch, clip=clip, mode=mode).total
    less = clipped_sum(model, CROSS_ENTROPY, rest, clip=clip, mode=mode).total
    assert (full - less).norm() <= clip * (1 + 1e-6) + 1e-6


@pytest.mark.parametrize("mode", ["linear", "hooks"])
def test_a_patient_whose_huge_rows_cancel_is_clipped_all_the_same(mode):
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    rows = torch.tensor([[1e10, 0.0], [1e10, 80.0]])  # the true norm is 20, the Gram sum 0
    batch = Batch(rows, torch.tensor([1.0, 0.0]), torch.tensor([2]))
    assert clipped_sum(model, LOGISTIC, batch, clip=1.0, mode=mode).total.norm() <= 1.0


@pytest.mark.parametrize("mode", ["linear", "hooks"])
def test_a_record_does_not_influence_another_patients_norm(mode):
    torch.manual_seed(0)
    model, batch = mlp(), batch_of([1, 2, 1], (5,))
    before = clipped_sum(model, CROSS_ENTROPY, batch, clip=1.0, mode=mode).norms
    batch.features[0] *= -4
    batch.label[0] = 1 - batch.label[0]
    after = clipped_sum(model, CROSS_ENTROPY, batch, clip=1.0, mode=mode).norms
    assert after[0] != before[0]
    assert torch.allclose(after[1:], before[1:], rtol=1e-6)


def shared() -> nn.Module:
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.ReLU(), layer)


def frozen() -> nn.Module:
    model = mlp()
    next(model.parameters()).requires_grad = False
    return model


@pytest.mark.parametrize(
    "model", [cnn(), Wrapped(mlp()), shared(), frozen(), nn.Sequential(nn.ReLU())]
)
def test_the_closed_form_is_refused_where_it_is_not_exact(model):
    assert linear_chain(model, 2) is None
    with pytest.raises(UsageError, match="not-linear"):
        clipped_sum(model, CROSS_ENTROPY, batch_of([1], (5,)), clip=1.0, mode="linear")


def test_the_closed_form_is_refused_for_linear_layers_over_sequences():
    assert linear_chain(mlp(), 3) is None
    assert linear_chain(image_mlp(), 4) is not None


def test_a_shared_layer_is_right_on_the_general_path():
    torch.manual_seed(0)
    model, batch = shared(), batch_of([2, 1, 3], (5,))
    total, norms = by_hand(model, CROSS_ENTROPY, batch, 0.4)
    result = clipped_sum(model, CROSS_ENTROPY, batch, clip=0.4)
    assert torch.allclose(result.norms, norms, rtol=1e-5)
    assert torch.allclose(result.total, total, atol=1e-6)


@pytest.mark.parametrize("mode", ["ew", "ghost", "functorch", ""])
def test_other_modes_of_opacus_cannot_be_reached(mode):
    with pytest.raises(UsageError, match="unknown-mode"):
        clipped_sum(mlp(), CROSS_ENTROPY, batch_of([1], (5,)), clip=1.0, mode=mode)


def test_hooks_on_a_model_in_evaluation_mode_are_refused():
    model = cnn().eval()
    with pytest.raises(UsageError, match="model-evaluating"):
        clipped_sum(model, CROSS_ENTROPY, batch_of([1], (1, 6, 6)), clip=1.0, mode="hooks")


@pytest.mark.parametrize("mode", ["linear", "hooks"])
def test_nothing_of_a_batch_stays_on_the_model(mode):
    model = mlp()
    before = set(vars(model)), {name for m in model.modules() for name in vars(m)}
    clipped_sum(model, CROSS_ENTROPY, batch_of([1, 2], (5,)), clip=1.0, mode=mode)
    after = set(vars(model)), {name for m in model.modules() for name in vars(m)}
    assert after == before
    assert all(p.grad is None and not vars(p) for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
