"""The sum of clipped patient gradients: the one function that training and audits share.

A patient's gradient is the mean of the gradients of his rows; its norm is taken over all trainable
parameters, in float64 and rounded up; it is scaled to at most the clipping norm. A patient whose
norm is not finite contributes exactly nothing. Adding or removing one patient therefore moves the
sum by at most the clipping norm, whatever his rows hold.

Three paths give the same norms: ``linear_gradients`` for models made of linear layers,
``layer_gradients`` for networks of known layers, ``hook_gradients`` for any other. Opacus' other
modes are not reachable: ExpandedWeights fails on empty batches, ghost clipping is wrong for several
rows per patient.

Source: Abadi et al., "Deep learning with differential privacy", 2016, algorithm 1
(arXiv 1607.00133), with patients in place of examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from larrey_privacy.batch import Batch, GradientSource
from larrey_privacy.hook_gradients import hooked, round_reset
from larrey_privacy.layer_gradients import layered
from larrey_privacy.linear_gradients import linear_chain
from larrey_privacy.losses import RowLoss
from larrey_protocol.errors import UsageError

__all__ = ["ClippedSum", "clip_batch", "clipped_sum", "gradient_source"]

# More than the rounding of a float64 sum of squares of 10^8 terms, taken pairwise.
_ROUND_UP = 1 + 1e-12
_STABILITY = 1e-6
_MODES = ("auto", "linear", "layers", "hooks")


@dataclass(frozen=True, slots=True, eq=False)
class ClippedSum:
    """What a batch adds to a step; private until noised.

    Attributes:
        total: flat float64 sum over patients, in the order of ``trainable(model)``.
        norms: float64 norm of each patient's gradient before clipping "(patients,)".
        factors: float64 factor on each patient's gradient "(patients,)", 0 where not finite.
    """

    total: Tensor
    norms: Tensor
    factors: Tensor


def clipped_sum(
    model: nn.Module, loss: RowLoss, batch: Batch, *, clip: float, mode: str = "auto"
) -> ClippedSum:
    """Return the sum over patients of gradients scaled to norm at most ``clip``.

    Args:
        model: in training mode; left without gradients or hooks.
        loss: losses of single rows.
        batch: whole patients, at least one.
        clip: the clipping norm C, > 0.
        mode: ``auto``, ``linear``, ``layers`` or ``hooks``; all give the same sum.

    Raises:
        UsageError: ``unknown-mode``; ``not-linear``, ``not-layered`` when that mode cannot serve
            this model.
    """
    with gradient_source(model, batch.features.dim(), mode=mode) as source:
        return clip_batch(source, loss, batch, clip=clip)


def clip_batch(source: GradientSource, loss: RowLoss, batch: Batch, *, clip: float) -> ClippedSum:
    """Return the clipped sum of one batch from a source prepared for many."""
    gradients = source.gradients(loss, batch)
    norms = gradients.norms() * _ROUND_UP
    scaled = (clip / (norms + _STABILITY)).clamp(max=1.0)
    factors = torch.where(norms.isfinite(), scaled, torch.zeros_like(scaled))
    return ClippedSum(gradients.weighted_sum(factors), norms, factors)


@contextmanager
def gradient_source(model: nn.Module, rank: int, *, mode: str = "auto") -> Iterator[GradientSource]:
    """Give the fastest exact path for the model; nothing of it is left afterwards.

    Args:
        model: the model to take gradients of.
        rank: number of dimensions of the features, rows included.
        mode: as in ``clipped_sum``.

    Raises:
        UsageError: as in ``clipped_sum``.
    """
    if mode not in _MODES:
        raise UsageError("unknown-mode", f"no gradient mode {mode!r}; known: {', '.join(_MODES)}.")
    found: GradientSource | None = None
    if mode in ("auto", "linear"):
        found = linear_chain(model, rank)
    if found is None and mode in ("auto", "layers"):
        found = layered(model, rank)
    if found is not None:
        try:
            yield found
        finally:
            round_reset(model)
    elif mode == "linear":
        raise UsageError("not-linear", "the model is not a chain of linear layers.")
    elif mode == "layers":
        raise UsageError("not-layered", "the model has parts that only Opacus' hooks can serve.")
    else:
        with hooked(model) as source:
            yield source
