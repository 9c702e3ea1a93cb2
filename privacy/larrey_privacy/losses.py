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


def _squared(outputs: Tensor, label: Tensor) -> Tensor:
    return (outputs.reshape(len(label)) - label).square() / 2


def _huber(outputs: Tensor, label: Tensor) -> Tensor:
    return functional.huber_loss(outputs.reshape(len(label)), label, reduction="none")


def _discrete_time(outputs: Tensor, label: Tensor) -> Tensor:
    """Return minus the log-likelihood of discrete times.

    ``outputs`` "(rows, intervals)" are logits of the hazard h, ``label`` is ``2 s + event``: the
    row lived through ``s`` intervals, and had the event in the next or was not seen any more:
    ``-sum(log(1 - h_j), j < s) - event * log(h_s)``. Gensheimer and Narasimhan 2019,
    https://peerj.com/articles/6257/, equation 3.
    """
    lived = torch.div(label, 2, rounding_mode="floor")[:, None]
    event = label[:, None] - 2 * lived
    place = torch.arange(outputs.shape[1], device=outputs.device)[None]
    through = functional.softplus(outputs) * (place < lived)  # -log(1 - h)
    stopped = functional.softplus(-outputs) * (place == lived) * event  # -log(h)
    return (through + stopped).sum(dim=1)


LOSSES: Mapping[str, RowLoss] = MappingProxyType(
    {
        "logistic": _logistic,
        "cross-entropy": _cross_entropy,
        "squared": _squared,
        "huber": _huber,
        "discrete-time": _discrete_time,
    }
)


def loss_named(name: str) -> RowLoss:
    """Return the loss of that name.

    Raises:
        UsageError: ``unknown-loss``.
    """
    if name not in LOSSES:
        raise UsageError("unknown-loss", f"no loss {name!r}; known: {', '.join(LOSSES)}.")
    return LOSSES[name]
