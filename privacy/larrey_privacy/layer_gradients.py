"""Patient gradients of networks whose layers are all known: one forward, one backward pass.

The backward pass gives the gradient δ at each layer's output. With the layer's input it makes each
row's gradient: in closed form at a linear layer (`larrey_privacy.linear_gradients`), as one matrix
product δ aᵀ a row over the unfolded input at a convolution, as a sum over positions at a group
norm. A convolution's gradients are kept in float32 where they are small; where they would fill the
memory they are made twice, some patients at a time, once for the norms and once for the sum. What
is made the second time is scaled down should it come out longer than the first, so that the norm
of what enters the sum is always the norm that was clipped.

Exact for linear layers, convolutions without groups, group norms, elementwise activations,
poolings, flattening and Larrey's own blocks; ``layered`` says None for anything else.

Source: G. Rochette, A. Manoel and E. Tramel, "Efficient per-example gradient computations in
convolutional neural networks", 2019 (arXiv 1912.06015); book-keeping as in Z. Bu et al., 2022
(arXiv 2210.00038).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from larrey_privacy.batch import Batch, owners
from larrey_privacy.blocks import Picture, Residual
from larrey_privacy.linear_gradients import ELEMENTWISE, LinearGradients
from larrey_privacy.losses import RowLoss

__all__ = ["LayeredModel", "layered"]

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_IMAGE = 4  # dimensions of a batch of images
_TABLE = 2

Rows = Callable[[slice], tuple[Tensor, ...]]
"""Gives the float32 gradients of some rows, "(rows, size)" a parameter, weight first."""


@dataclass(frozen=True, slots=True)
class LayeredModel:
    """A model and its layers with parameters, in the order of every flat vector.

    Attributes:
        model: the whole.
        layers: those with parameters of their own.
        kept_bytes: most of one layer's gradients that are kept between norms and sum.
        piece_bytes: about the size of one piece of work.
    """

    model: nn.Module
    layers: tuple[nn.Module, ...]
    kept_bytes: int = 48 << 20
    piece_bytes: int = 4 << 20

    def gradients(self, loss: RowLoss, batch: Batch) -> LayeredGradients:
        """Return the batch's gradients from one forward and one backward pass."""
        passed: dict[nn.Module, tuple[Tensor, Tensor]] = {}

        def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            passed[layer] = (inputs[0].detach(), output)

        handles = [layer.register_forward_hook(note) for layer in self.layers]
        try:
            with torch.enable_grad():
                total = loss(self.model(batch.features), batch.label).sum()
        finally:
            for handle in handles:
                handle.remove()
        deltas = torch.autograd.grad(total, [passed[layer][1] for layer in self.layers])
        inputs = [passed[layer][0] for layer in self.layers]
        return LayeredGradients(
            tuple(
                self._of_layer(layer, value, delta, batch.counts)
                for layer, value, delta in zip(self.layers, inputs, deltas, strict=True)
            )
        )

    def _of_layer(
        self, layer: nn.Module, value: Tensor, delta: Tensor, counts: Tensor
    ) -> LinearGradients | _Pieces:
        if isinstance(layer, nn.Linear):
            return LinearGradients(
                (value.double(),), (delta.double(),), (layer.bias is not None,), counts
            )
        size = sum(p.numel() for p in layer.parameters()) * value.element_size()
        if isinstance(layer, nn.Conv2d):
            unfolded = layer.weight[0].numel() * delta[0, 0].numel() * value.element_size()
            rows = _convolved(layer, value, delta)
            is_kept = size * len(value) <= self.kept_bytes
            most = max(1, self.piece_bytes // (unfolded + 3 * size))
            return _Pieces(rows, counts, most, is_kept)
        if isinstance(layer, nn.GroupNorm):
            most = max(1, self.piece_bytes // (3 * value[0].nbytes))
            return _Pieces(_normed(layer, value, delta), counts, most, True)
        raise AssertionError(type(layer))


@dataclass(frozen=True, slots=True, eq=False)
class LayeredGradients:
    """Gradients of every layer; private."""

    layers: tuple[LinearGradients | _Pieces, ...]

    def norms(self) -> Tensor:
        """Return the norms of the patients' mean gradients "(patients,)"."""
        return torch.stack([layer.squared() for layer in self.layers]).sum(0).sqrt()

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return the flat sum of mean gradients times factors."""
        return torch.cat([layer.weighted_sum(factors) for layer in self.layers])


@dataclass(slots=True, eq=False)
class _Pieces:
    """One layer's gradients per patient, made piece by piece; private.

    Attributes:
        rows: makes the gradients of some rows.
        counts: rows of each patient.
        most_rows: in a piece; a patient with more is a piece alone.
        is_kept: whether the first making is kept for the sum.
    """

    rows: Rows
    counts: Tensor
    most_rows: int
    is_kept: bool
    _kept: list[tuple[Tensor, ...]] = field(default_factory=list)
    _squared: Tensor | None = None

    def squared(self) -> Tensor:
        """Return the squared norms of the patients' mean gradients "(patients,)"."""
        found = []
        for patients, rows in self._cuts():
            made = self.rows(rows)
            if self.is_kept:
                self._kept.append(made)
            found.append(_squared(_means(made, self.counts[patients])))
        self._squared = torch.cat(found)
        return self._squared

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Return the flat sum of mean gradients times factors, float64."""
        before = self.squared() if self._squared is None else self._squared
        total: list[Tensor] = []
        for number, (patients, rows) in enumerate(self._cuts()):
            means = _means(
                self._kept[number] if self.is_kept else self.rows(rows), self.counts[patients]
            )
            weights = factors[patients]
            if not self.is_kept:
                weights = weights * _not_longer(before[patients], _squared(means))
            if bool((is_out := weights == 0).any()):
                means = tuple(mean.masked_fill(is_out[:, None], 0.0) for mean in means)
            parts = [weights @ mean for mean in means]
            total = [one + part for one, part in zip(total, parts, strict=True)] if total else parts
        return torch.cat(total)

    def _cuts(self) -> Iterator[tuple[slice, slice]]:
        """Give patients and their rows, no patient split."""
        ends = self.counts.cumsum(0).tolist()
        first, done = 0, 0
        for patient, end in enumerate(ends):
            following = ends[patient + 1] if patient + 1 < len(ends) else None
            if following is None or following - done > self.most_rows:
                yield slice(first, patient + 1), slice(done, end)
                first, done = patient + 1, end


def layered(model: nn.Module, rank: int) -> LayeredModel | None:
    """Return the model as known layers, or None where this path is not exact.

    Args:
        model: any module; only exact types count, a subclass may do anything.
        rank: number of dimensions of the features, rows included.
    """
    modules = list(model.modules())
    layers = tuple(m for m in modules if any(True for _ in m.parameters(recurse=False)))
    parameters = [p for layer in layers for p in layer.parameters(recurse=False)]
    is_own = len({id(p) for p in parameters}) == len(parameters)
    has_all = all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    # ``modules`` names a module once; one that stands in two places computes twice.
    is_once = len(list(model.named_modules(remove_duplicate=False))) == len(modules)
    if not layers or not is_own or not has_all or hooks or not is_once:
        return None
    return LayeredModel(model, layers) if _rank_after(model, rank) is not None else None


def _rank_after(module: nn.Module, rank: int) -> int | None:
    """Return the number of dimensions of a known module's output, None if it is not known."""
    kind = type(module)
    if kind is nn.Sequential or kind is Residual:
        after: int | None = rank
        for child in module.children():
            after = None if after is None else _rank_after(child, after)
        return after
    if kind is Picture:
        return _IMAGE
    if isinstance(module, nn.Flatten) and kind is nn.Flatten:
        return _TABLE if (module.start_dim, module.end_dim) == (1, -1) else None
    return rank if _is_known(module, rank) else None


def _is_known(layer: nn.Module, rank: int) -> bool:
    """Return whether a layer that keeps the number of dimensions is one that this path knows."""
    kind = type(layer)
    if kind is nn.Linear:
        return rank == _TABLE
    if isinstance(layer, nn.Conv2d) and kind is nn.Conv2d:
        is_plain = layer.groups == 1 and layer.padding_mode == "zeros"
        return rank == _IMAGE and is_plain and not isinstance(layer.padding, str)
    if kind is nn.GroupNorm:
        return bool(layer.affine)
    if kind in _POOLS:
        return rank == _IMAGE and not getattr(layer, "return_indices", False)
    return kind in ELEMENTWISE and not getattr(layer, "inplace", False)


def _convolved(layer: nn.Conv2d, value: Tensor, delta: Tensor) -> Rows:
    kernel, dilation, padding, stride = (
        layer.kernel_size, layer.dilation, layer.padding, layer.stride,
    )  # fmt: skip
    flat = delta.flatten(2)
    has_bias = layer.bias is not None

    def rows(some: slice) -> tuple[Tensor, ...]:
        columns = functional.unfold(value[some], kernel, dilation, padding, stride)  # type: ignore[arg-type]  # not text, `_rank_after` looked
        weight = torch.bmm(flat[some], columns.transpose(1, 2)).flatten(1)
        return (weight, flat[some].sum(2)) if has_bias else (weight,)

    return rows


def _normed(layer: nn.GroupNorm, value: Tensor, delta: Tensor) -> Rows:
    def rows(some: slice) -> tuple[Tensor, ...]:
        normal = functional.group_norm(value[some], layer.num_groups, eps=layer.eps)
        bare = delta[some].flatten(2)
        return (normal.flatten(2) * bare).sum(2), bare.sum(2)

    return rows


def _means(made: tuple[Tensor, ...], counts: Tensor) -> tuple[Tensor, ...]:
    """Return the mean gradients of whole patients, float64 "(patients, size)" a parameter."""
    wide = tuple(one.double() for one in made)
    if len(counts) == len(wide[0]):
        return wide
    owner = owners(counts)
    return tuple(
        one.new_zeros(len(counts), one.shape[1]).index_add_(0, owner, one) / counts[:, None]
        for one in wide
    )


def _squared(means: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([torch.linalg.vecdot(mean, mean) for mean in means]).sum(0)


def _not_longer(before: Tensor, now: Tensor) -> Tensor:
    """Return factors that make what is ``now`` squared long no longer than it was ``before``."""
    ratio = (before / now).sqrt().clamp(max=1.0)
    return torch.where(now == before, torch.ones_like(ratio), ratio.nan_to_num(0.0))
