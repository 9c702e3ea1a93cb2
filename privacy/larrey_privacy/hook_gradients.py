"""Patient gradients of any model, from Opacus' hooks: the general path.

Opacus gives a gradient per row; grouping by patient, norms and weighing are ours. Opacus is
imported only when this path is taken. Everything that it leaves on a model, activations of
patients among it, is removed when the context ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from larrey_privacy.batch import Batch, owners, trainable
from larrey_privacy.losses import RowLoss
from larrey_protocol.errors import IntegrityError, UsageError

__all__ = ["HookedModel", "hooked", "round_reset"]

_ON_PARAMETERS = ("grad_sample", "summed_grad", "_current_grad_sample", "_norm_sample")
_ON_MODULES = ("activations", "max_batch_len")


@dataclass(frozen=True, slots=True)
class HookedModel:
    """A model under Opacus' GradSampleModule."""

    wrapped: Any  # Any: opacus ships no types

    def gradients(self, loss: RowLoss, batch: Batch) -> HookGradients:
        """Return the batch's gradients per patient.

        Raises:
            UsageError: ``gradient-missing`` when a trainable parameter took no part.
        """
        parameters = trainable(self.wrapped)
        # torch warns about module hooks when no input of a module asks for a gradient.
        features = batch.features.detach().requires_grad_(batch.features.is_floating_point())
        with torch.enable_grad():
            torch.autograd.backward(loss(self.wrapped(features), batch.label).sum())
        rows = [getattr(p, "grad_sample", None) for p in parameters]
        means = tuple(_patient_means(gradient, batch.counts) for gradient in rows)
        self.wrapped.zero_grad(set_to_none=True)
        return HookGradients(means)


@dataclass(frozen=True, slots=True, eq=False)
class HookGradients:
    """Each patient's mean gradient, float64 "(patients, size)" a parameter; private."""

    means: tuple[Tensor, ...]

    def norms(self) -> Tensor:
        """Return the norms of the patients' mean gradients "(patients,)"."""
        squared = [mean.square().sum(1) for mean in self.means]
        return torch.stack(squared).sum(0).sqrt()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return the flat sum of mean gradients times factors."""
        is_out = (factors == 0)[:, None]
        return torch.cat([factors @ mean.masked_fill(is_out, 0.0) for mean in self.means])


@contextmanager
def hooked(model: nn.Module) -> Iterator[HookedModel]:
    """Give the model under hooks, and clean it afterwards.

    Raises:
        UsageError: ``model-evaluating`` when the model is not in training mode: hooks see nothing.
    """
    from opacus import GradSampleModule

    if not all(module.training for module in model.modules()):
        raise UsageError("model-evaluating", "the model must be in training mode.")
    # Opacus (unfold2d of 1.6.0) reads a convolution's input as if it lay row after row in memory;
    # of one with its channels last it would make wrong norms, and clip too little or too much.
    convolutions = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    guards = [module.register_forward_pre_hook(_laid_out) for module in convolutions]
    wrapped = GradSampleModule(model, loss_reduction="sum")
    try:
        yield HookedModel(wrapped)
    finally:
        wrapped.to_standard_module()
        for guard in guards:
            guard.remove()
        round_reset(model)


def _laid_out(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in inputs)


def round_reset(model: nn.Module) -> None:
    """Remove every gradient and activation from the model.

    Raises:
        IntegrityError: ``gradients-pending`` when something is left all the same.
    """
    for parameter in model.parameters():
        parameter.grad = None
        _strip(parameter, _ON_PARAMETERS)
    for module in model.modules():
        _strip(module, _ON_MODULES)
    is_pending = any(
        p.grad is not None or hasattr(p, "grad_sample") for p in model.parameters()
    ) or any(hasattr(module, "activations") for module in model.modules())
    if is_pending:
        raise IntegrityError("gradients-pending", "a round left gradients on the model.")


def _strip(owner: object, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)


def _patient_means(rows: Tensor | None, counts: Tensor) -> Tensor:
    if rows is None:
        raise UsageError(
            "gradient-missing",
            "a trainable parameter took no part in the loss.",
            "Freeze the parameter or use it.",
        )
    flat = rows.reshape(len(rows), -1).double()
    if len(counts) == len(flat):
        return flat
    sums = torch.zeros(len(counts), flat.shape[1], dtype=flat.dtype, device=flat.device)
    return sums.index_add_(0, owners(counts), flat) / counts[:, None]
