"""The price of a private step beside a plain one, in time, on one thread.

A private step is whole: patients' gradients, norms, clipping, fresh noise, grid, momentum. The
plain step is torch's own: mean loss, backward, `torch.optim.SGD` with momentum. Same network, rows
and thread; the two take turns, and a ratio is the median of the turns' ratios. Rows come ready:
drawing patients is left out on both sides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from bench.harness import Comparison, Figure, finish
from larrey_privacy.batch import Batch, trainable
from larrey_privacy.blocks import Picture, Residual
from larrey_privacy.clipping import clip_batch, clipped_sum, gradient_source
from larrey_privacy.losses import LOSSES
from larrey_privacy.noise import NoiseStream, grid_of, round_to_grid
from larrey_protocol.streams import reuse_buffers

_LOSS = LOSSES["cross-entropy"]
_CLIP, _SIGMA = 1.0, 1.0
_SHORT, _LONG, _RUNS = 0.2, 0.6, 5  # seconds of one turn; turns

Step = Callable[[], object]


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    reuse_buffers()  # as in a trainer; both sides gain
    figures, differences = [], []
    cases = (
        ("mlp", _mlp(), (40,), 256, 1, _SHORT, 2.0),
        ("mlp_k4", _mlp(), (40,), 256, 4, _SHORT, 3.0),
        ("cnn", _cnn(), (784,), 128, 1, _LONG, 1.8),
        ("resnet", _resnet(), (3072,), 16, 1, _LONG, None),
    )
    for name, model, shape, patients, rows, seconds, target in cases:
        batch = _batch(patients, rows, shape)
        comparison: Comparison = "<=" if target else ""
        with _private(model, batch, "auto") as ours, _private(model, batch, "auto", 0.0) as bare:
            plain = _plain(model, batch)
            whole = [_ratio(ours, plain, seconds) for _ in range(_RUNS)]
            quiet = [_ratio(bare, plain, seconds) for _ in range(_RUNS)]
        count = f"median of {_RUNS}, {min(whole):.2f} to {max(whole):.2f}"
        value = statistics.median(whole)
        figures += [
            Figure(f"{name}_slowdown", value, "", comparison, target, count=count),
            Figure(f"{name}_slowdown_without_noise", statistics.median(quiet)),
        ]
        differences.append(_difference(model, batch))
        if name in ("cnn", "resnet"):
            figures.append(_beside_hooks(name, model, batch, seconds))
    figures.append(Figure("norm_relative_difference", max(differences), "", "<=", 1e-5))
    notes = [
        "One thread. mlp 40-128-2, 256 patients, with k4 four rows each against a plain step over",
        "the same 1024 rows; cnn 28x28x1, channels 16 and 32, 128 rows; resnet 32x32x3, width 16,",
        "16 rows. The norms' difference is to one gradient a patient, taken alone.",
        "over_hooks: beside Larrey's own path over Opacus' hooks, with the same noise.",
    ]
    return finish("dp", "make bench-dp", figures, notes=notes)


def _beside_hooks(name: str, model: nn.Module, batch: Batch, seconds: float) -> Figure:
    """Return the fast path's time over the hooks', each set up apart."""
    ratios = []
    for _ in range(3):
        with _private(model, batch, "hooks") as hooks:
            slow = _seconds(hooks, seconds)
        with _private(model, batch, "auto") as ours:
            ratios.append(_seconds(ours, seconds) / slow)
    return Figure(f"{name}_over_hooks", statistics.median(ratios), count="median of 3")


@contextmanager
def _private(model: nn.Module, batch: Batch, mode: str, sigma: float = _SIGMA) -> Iterator[Step]:
    """Give a whole private step with an update of its own, the model's values staying put."""
    size = sum(p.numel() for p in trainable(model))
    noise, velocity, now = NoiseStream(), np.zeros(size), np.zeros(size)
    grid = grid_of(_CLIP, (4 * len(batch.counts) + 9 * _SIGMA) * _CLIP)
    with gradient_source(model, batch.features.dim(), mode=mode) as source:

        def step() -> None:
            total = clip_batch(source, _LOSS, batch, clip=_CLIP).total.numpy()
            if sigma:
                total += sigma * _CLIP * noise.normal(size)
            gradient = round_to_grid(total, grid) / len(batch.counts)
            np.multiply(velocity, 0.9, out=velocity)
            np.add(velocity, gradient, out=velocity)
            np.subtract(now, 1e-9 * velocity, out=now)
            now.astype(np.float32)

        yield step


def _plain(model: nn.Module, batch: Batch) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    label = batch.label.long()

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(batch.features), label))
        optimizer.step()

    return step


def _ratio(one: Step, other: Step, seconds: float) -> float:
    return _seconds(one, seconds) / _seconds(other, seconds)


def _seconds(step: Step, budget: float) -> float:
    """Return the median time of a step, run for about ``budget`` seconds."""
    step()
    taken: list[float] = []
    end = time.perf_counter() + budget
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _difference(model: nn.Module, batch: Batch) -> float:
    """Return the largest relative difference of a norm to the gradient of the patient alone."""
    found = clipped_sum(model, _LOSS, batch, clip=_CLIP).norms
    worst, first = 0.0, 0
    for patient, count in enumerate(batch.counts.tolist()):
        rows = slice(first, first + count)
        value = _LOSS(model(batch.features[rows]), batch.label[rows]).mean()
        parts = torch.autograd.grad(value, trainable(model))
        norm = torch.cat([part.flatten() for part in parts]).double().norm()
        worst, first = max(worst, float((found[patient] / norm - 1).abs())), first + count
    return worst


def _batch(patients: int, rows: int, shape: tuple[int, ...]) -> Batch:
    many = patients * rows
    counts = torch.full((patients,), rows)
    return Batch(torch.randn(many, *shape), torch.randint(0, 2, (many,)).float(), counts)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 128), nn.ReLU(), nn.Linear(128, 2))


def _stage(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return [convolution, nn.GroupNorm(8, outputs), nn.ReLU(), nn.MaxPool2d(2)]


def _cnn() -> nn.Module:
    flat = [nn.Flatten(), nn.Linear(32 * 49, 2)]
    return nn.Sequential(Picture(28, 28, 1), *_stage(1, 16), *_stage(16, 32), *flat)


def _resnet() -> nn.Module:
    parts: list[nn.Module] = [Picture(32, 32, 3), nn.Conv2d(3, 16, 3, padding=1)]
    before = 16
    for stage in range(3):
        width, stride = 16 * 2**stage, 2 if stage else 1
        within: dict[str, nn.Module] = {
            "0": nn.GroupNorm(8, before), "1": nn.ReLU(),
            "2": nn.Conv2d(before, width, 3, stride, padding=1),
            "3": nn.GroupNorm(8, width), "4": nn.ReLU(),
            "5": nn.Conv2d(width, width, 3, padding=1),
        }  # fmt: skip
        if stage:
            within["shortcut"] = nn.Conv2d(before, width, 1, stride)
        parts.append(Residual(within, deep=6))
        before = width
    last = [nn.GroupNorm(8, before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, *last, nn.Linear(before, 2))


if __name__ == "__main__":
    raise SystemExit(main())
