"""A micro-batch of whole patients, and what a gradient path must offer for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from larrey_privacy.losses import RowLoss

__all__ = ["Batch", "GradientSource", "Gradients", "owners", "trainable"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of whole patients, patient after patient; private.

    Attributes:
        features: "(rows, …)".
        label: "(rows,)".
        counts: int64 rows of each patient "(patients,)", each at least 1, summing to rows.
    """

    features: Tensor
    label: Tensor
    counts: Tensor


class Gradients(Protocol):
    """Gradients of one batch, kept until they are weighed."""

    def norms(self) -> Tensor:
        """Return float64 norms of the patients' mean gradients "(patients,)"."""

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return the flat float64 sum of the patients' mean gradients times their factors.

        A patient with factor 0 adds exactly 0, even where his gradient is not finite.
        """


class GradientSource(Protocol):
    """One way to get gradients per patient from a model."""

    def gradients(self, loss: RowLoss, batch: Batch) -> Gradients:
        """Return the batch's gradients."""


def owners(counts: Tensor) -> Tensor:
    """Return the patient of each row, numbered without gaps, "(rows,)"."""
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


def trainable(model: nn.Module) -> tuple[nn.Parameter, ...]:
    """Return the trainable parameters in the order of every flat vector here."""
    return tuple(p for p in model.parameters() if p.requires_grad)
