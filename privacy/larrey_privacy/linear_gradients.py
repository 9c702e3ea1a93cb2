"""Patient gradients of models made of linear layers, in closed form.

The gradient of one row at a linear layer is the outer product of the layer's input a and the
gradient δ at its output, so that its squared norm is (‖a‖² + 1)‖δ‖², the 1 for the bias. For a
patient with several rows the inner products of all pairs, (a_i·a_j + 1)(δ_i·δ_j), add up to the
squared norm of the sum; where they cancel, a bound on their rounding is added, so that no norm is
found smaller than it is. No gradient per row is ever stored, and the weighted sum is one matrix
product a layer. Exact for chains of linear layers, elementwise activations and flattening only.

Source: I. Goodfellow, "Efficient per-example gradient computations", 2015 (arXiv 1510.01799); the
sum over pairs is the same identity for sums of outer products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from larrey_privacy.batch import Batch, owners
from larrey_privacy.losses import RowLoss

__all__ = ["ELEMENTWISE", "LinearChain", "LinearGradients", "linear_chain"]

# Unit roundoff of float64, doubled: room for the products before the sum.
_ROUNDING = 2.0**-52

ELEMENTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardtanh,
)


@dataclass(frozen=True, slots=True)
class LinearChain:
    """A model as the chain of its layers, inputs two-dimensional at every linear layer."""

    layers: tuple[nn.Module, ...]

    def gradients(self, loss: RowLoss, batch: Batch) -> LinearGradients:
        """Return the batch's gradients from one forward and one backward pass."""
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        value = batch.features
        with torch.enable_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    inputs.append(value.detach())
                    value = layer(value)
                    outputs.append(value)
                else:
                    value = layer(value)
            total = loss(value, batch.label).sum()
        deltas = torch.autograd.grad(total, outputs)
        has_bias = tuple(
            layer.bias is not None for layer in self.layers if isinstance(layer, nn.Linear)
        )
        return LinearGradients(
            inputs=tuple(value.double() for value in inputs),
            deltas=tuple(delta.double() for delta in deltas),
            has_bias=has_bias,
            counts=batch.counts,
        )


@dataclass(frozen=True, slots=True, eq=False)
class LinearGradients:
    """Inputs and output gradients of every linear layer, float64 "(rows, width)"; private."""

    inputs: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    has_bias: tuple[bool, ...]
    counts: Tensor

    def norms(self) -> Tensor:
        """Return the norms of the patients' mean gradients "(patients,)"."""
        return self.squared().sqrt()

    def squared(self) -> Tensor:
        """Return the squared norms of the patients' mean gradients "(patients,)"."""
        squared = torch.zeros(len(self.counts), dtype=torch.float64, device=self.counts.device)
        is_single = len(self.counts) == len(self.deltas[0])
        for a, delta, bias in zip(self.inputs, self.deltas, self.has_bias, strict=True):
            if is_single:
                squared += (a.square().sum(1) + bias) * delta.square().sum(1)
            else:
                squared += _pairs(a, delta, bias=bias, counts=self.counts)
        return squared / self.counts.square()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return the flat sum of mean gradients times factors, weight then bias a layer."""
        weights = (factors / self.counts)[owners(self.counts)][:, None]
        is_out = weights == 0
        is_any_out = bool(is_out.any())  # rarely, and masking costs as much as the product
        parts: list[Tensor] = []
        for a, delta, bias in zip(self.inputs, self.deltas, self.has_bias, strict=True):
            scaled = (delta.masked_fill(is_out, 0.0) if is_any_out else delta) * weights
            kept = a.masked_fill(is_out, 0.0) if is_any_out else a
            parts.append((scaled.T @ kept).flatten())
            if bias:
                parts.append(scaled.sum(0))
        return torch.cat(parts)


def linear_chain(model: nn.Module, rank: int) -> LinearChain | None:
    """Return the model as a chain of linear layers, or None where the closed form is not exact.

    Args:
        model: any module; only exact types count, a subclass may do anything.
        rank: number of dimensions of the features, rows included.
    """
    layers = tuple(_flat(model))
    kinds = [type(layer) for layer in layers]
    is_known = all(kind in (nn.Linear, nn.Flatten, *ELEMENTWISE) for kind in kinds)
    if not is_known or nn.Linear not in kinds:
        return None
    flattens = [layer for layer in layers if isinstance(layer, nn.Flatten)]
    is_flat = rank == 2 or (rank > 2 and nn.Flatten in kinds[: kinds.index(nn.Linear)])
    has_plain_flatten = all((f.start_dim, f.end_dim) == (1, -1) for f in flattens)
    parameters = [p for layer in layers for p in layer.parameters()]
    is_own = len({id(p) for p in parameters}) == len(parameters)
    has_all = all(p.requires_grad for p in parameters)
    hooks = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
    if is_flat and has_plain_flatten and is_own and has_all and not hooks:
        return LinearChain(layers)
    return None


def _flat(model: nn.Module) -> Iterator[nn.Module]:
    if type(model) is nn.Sequential:
        for child in model:
            yield from _flat(child)
    else:
        yield model


def _pairs(a: Tensor, delta: Tensor, *, bias: bool, counts: Tensor) -> Tensor:
    """Return the squared norms of the patients' summed outer products "(patients,)"."""
    most = int(counts.max())
    wide_a, wide_delta = _by_patient(a, counts, most), _by_patient(delta, counts, most)
    gram_a = wide_a @ wide_a.transpose(1, 2) + float(bias)
    gram_delta = wide_delta @ wide_delta.transpose(1, 2)
    squared = (gram_a * gram_delta).sum((1, 2))
    own = gram_a.diagonal(dim1=1, dim2=2) * gram_delta.diagonal(dim1=1, dim2=2)
    terms = a.shape[1] + delta.shape[1] + most * most + 4
    return squared.clamp(min=0.0) + terms * _ROUNDING * own.sqrt().sum(1).square()


def _by_patient(rows: Tensor, counts: Tensor, most: int) -> Tensor:
    """Return the rows as "(patients, most, width)", zeros where a patient has fewer."""
    patients, width = len(counts), rows.shape[1]
    if len(rows) == patients * most:
        return rows.view(patients, most, width)
    owner = owners(counts)
    within = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[owner]
    wide = rows.new_zeros(patients * most, width)
    return wide.index_copy_(0, owner * most + within, rows).view(patients, most, width)
