"""Modules that Larrey's networks are built of beside torch's own.

They live here because the exact paths to patient gradients must know what a module computes: of
these two it is known that rows stand alone and that no parameter is used twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["Picture", "Residual"]


class Picture(nn.Module):
    """Rows of pixels, channels last, as torch's images, channels first."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, rows: Tensor) -> Tensor:
        """Return "(rows, channels, height, width)"."""
        return rows.reshape(len(rows), *self._shape).permute(0, 3, 1, 2)


class Residual(nn.Sequential):
    """Layers whose input, or its projection by the last part, is added to what they make of it."""

    def __init__(self, parts: Mapping[str, nn.Module], *, deep: int) -> None:
        """Take named parts: ``deep`` layers in turn, then the projection, if any."""
        super().__init__()
        for name, module in parts.items():
            self.add_module(name, module)
        self._deep = deep

    def forward(self, value: Tensor) -> Tensor:
        """Return what the layers make of the input, plus the input."""
        deep, *shortcut = list(self)[: self._deep], *list(self)[self._deep :]
        made = value
        for module in deep:
            made = module(made)
        return made + (shortcut[0](value) if shortcut else value)
