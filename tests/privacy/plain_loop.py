"""Clipping by its definition, one patient after another: what every faster path is held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from larrey_privacy.batch import Batch, trainable
from larrey_privacy.losses import RowLoss


def batch_of(counts: Sequence[int], shape: Sequence[int], seed: int = 3) -> Batch:
    """Return random rows of patients with these numbers of rows; labels 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    rows = sum(counts)
    return Batch(
        torch.randn(rows, *shape, generator=generator),
        torch.randint(0, 2, (rows,), generator=generator).float(),
        torch.tensor(counts),
    )


def by_hand(model: nn.Module, loss: RowLoss, batch: Batch, clip: float) -> tuple[Tensor, Tensor]:
    """Return the sum of each patient's mean gradient taken alone and clipped, and the norms."""
    totals, norms, first = [], [], 0
    for count in batch.counts.tolist():
        rows = slice(first, first + count)
        value = loss(model(batch.features[rows]), batch.label[rows]).mean()
        parts = torch.autograd.grad(value, trainable(model))
        gradient = torch.cat([part.flatten() for part in parts]).double()
        norms.append(gradient.norm())
        totals.append(gradient * min(1.0, clip / (float(gradient.norm()) + 1e-6)))
        first += count
    return torch.stack(totals).sum(0), torch.stack(norms)
