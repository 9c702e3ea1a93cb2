"""Which models and losses may train privately: those in which patients stand alone.

Clipping bounds a patient's influence only if no other patient's gradient depends on his rows and
no buffer remembers them. Both are tried on synthetic rows before a study's first round, because
static checks miss frozen batch normalisation and averages inside a loss. Sees no patient data. An
adversarial model could behave differently on synthetic rows; models come from the site's own
registry or approved wheels, so that this guards against mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from larrey_privacy.losses import RowLoss
from larrey_protocol.errors import Refusal

__all__ = ["admit", "require_independent_loss", "require_independent_model", "require_no_memory"]

_ROWS = 6
_SEED = 5
# Layers that normalise across rows, whether or not they keep running statistics.
_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def admit(
    model: nn.Module, loss: RowLoss, *, row_shape: Sequence[int], labels: Sequence[float] = (0, 1)
) -> None:
    """Refuse a model or loss in which one patient's rows touch another's gradient.

    Args:
        model: on the CPU; left as it was.
        loss: losses of single rows.
        row_shape: shape of one row's features.
        labels: values a label may take.

    Raises:
        Refusal: ``model-buffers``, ``model-couples-patients`` or ``loss-couples-patients``.
    """
    generator = torch.Generator().manual_seed(_SEED)
    features = torch.randn(_ROWS, *row_shape, generator=generator)
    choices = torch.tensor(labels, dtype=torch.float32)
    label = choices[torch.arange(_ROWS) % len(choices)]
    with _moved(model, generator):
        require_no_memory(model, features)
        require_independent_model(model, features)
        with torch.no_grad():
            outputs = _forward(model, features)
    require_independent_loss(loss, outputs, label, choices=choices)


def require_no_memory(model: nn.Module, features: Tensor) -> None:
    """Refuse a model that keeps statistics of rows: its buffers would leave with the update.

    Raises:
        Refusal: ``model-buffers``.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BATCH_NORMS) or getattr(module, "track_running_stats", False):
            raise _buffers(f"layer {name!r} is {type(module).__name__}")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        changed = _changed_buffers(model, features)
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in before:
                    buffer.copy_(before[name])
    if changed:
        raise _buffers(f"buffer {changed[0]!r} changes in a forward pass")


def require_independent_model(model: nn.Module, features: Tensor) -> None:
    """Refuse a model whose output for one row depends on another row.

    Raises:
        Refusal: ``model-couples-patients``.
    """
    with torch.no_grad():
        reference = _forward(model, features)
        for other in range(len(features)):
            changed = features.clone()
            changed[other] = 3 * changed[other] + 1
            kept = torch.arange(len(features)) != other
            if not _close(_forward(model, changed)[kept], reference[kept]):
                raise Refusal(
                    "model-couples-patients",
                    "the model's output for one row changes with another row.",
                    "Use layers that treat each row alone, for instance GroupNorm.",
                )


def require_independent_loss(
    loss: RowLoss, outputs: Tensor, label: Tensor, *, choices: Tensor
) -> None:
    """Refuse a loss whose gradient for one row depends on another row's output, label or presence.

    Args:
        loss: losses of single rows, "(rows,)".
        outputs: synthetic outputs of a model "(rows, …)".
        label: synthetic labels "(rows,)".
        choices: values a label may take; each is tried in every other row.

    Raises:
        Refusal: ``loss-couples-patients``.
    """
    reference = _loss_gradient(loss, outputs, label)
    for other in range(len(label)):
        kept = torch.arange(len(label)) != other
        moved = outputs.clone()
        moved[other] = 3 * moved[other] + 1
        trials = [
            _loss_gradient(loss, moved, label)[kept],
            _loss_gradient(loss, outputs[kept], label[kept]),
        ]
        for choice in choices:
            flipped = label.clone()
            flipped[other] = choice
            trials.append(_loss_gradient(loss, outputs, flipped)[kept])
        if not all(_close(trial, reference[kept]) for trial in trials):
            raise _couples("its gradient for one row changes with another row")


@contextmanager
def _moved(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Give the parameters other values for a while: at zero, rows influence no output."""
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            scale = max(1, parameter.numel() // max(1, len(parameter) if parameter.ndim else 1))
            change = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(change / scale**0.5)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(model.parameters(), before, strict=True):
                parameter.copy_(values)


def _changed_buffers(model: nn.Module, features: Tensor) -> list[str]:
    """Return the buffers that forward passes change, from values where no iteration rests."""
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype))
        moved = {name: buffer.clone() for name, buffer in model.named_buffers()}
        _forward(model, features)
        _forward(model, 2 * features + 1)
    return [
        name
        for name, buffer in model.named_buffers()
        if name not in moved or not _same(moved[name], buffer)
    ]


def _forward(model: nn.Module, features: Tensor) -> Tensor:
    """Return outputs in training mode under a fixed generator, so that dropout repeats."""
    was_training = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            outputs: Tensor = model(features)
    finally:
        for module, training in was_training:
            module.training = training
    return outputs


def _loss_gradient(loss: RowLoss, outputs: Tensor, label: Tensor) -> Tensor:
    leaf = outputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        losses = loss(leaf, label)
        if losses.shape != label.shape:
            raise _couples(f"it gives {tuple(losses.shape)} numbers for {len(label)} rows")
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return gradient


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def _buffers(found: str) -> Refusal:
    return Refusal(
        "model-buffers",
        f"the model keeps what it saw of patients: {found}.",
        "Replace batch normalisation by group normalisation.",
    )


def _couples(found: str) -> Refusal:
    return Refusal(
        "loss-couples-patients",
        f"the loss mixes patients: {found}.",
        "Use a loss with one number per row and no average or weight over the batch.",
    )
