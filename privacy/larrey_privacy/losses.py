"""The losses a study may name: one number per row, never an average.

Averages over a batch divide by something that depends on other patients; here every row's loss
stands alone and the division is by a public number, later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from larrey_protocol.errors import UsageError

__all__ = ["LOSSES", "RowLoss", "loss_named"]

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""Takes outputs "(rows, …)" and labels "(rows,)", gives losses "(rows,)"."""


def _logistic(outputs: Tensor, label: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        outputs.reshape(len(label)), label, reduction="none"
    )


def _cross_entropy(outputs: Tensor, label: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, label.to(torch.int64), reduction="none")


LOSSES: Mapping[str, RowLoss] = MappingProxyType(
    {"logistic": _logistic, "cross-entropy": _cross_entropy}
)


def loss_named(name: str) -> RowLoss:
    """Return the loss of that name.

    Raises:
        UsageError: ``unknown-loss``.
    """
    if name not in LOSSES:
        raise UsageError("unknown-loss", f"no loss {name!r}; known: {', '.join(LOSSES)}.")
    return LOSSES[name]
