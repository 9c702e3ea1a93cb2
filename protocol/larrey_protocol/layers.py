"""The layers that a study may name, which shapes they make of which, and their tensors. No torch.

A closed list. A network is a chain of layers from the contract's inputs; a last linear layer to the
outputs that the label asks for is added, so that no author writes its width. Images are
"(channels, height, width)", columns "(features,)". `larrey_client.networks` builds the modules;
a contract test holds the two together. Normalisation is by group within a row: batch norm would
couple patients (Wu and He 2018, arXiv:1803.08494).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from larrey_protocol.tomlfile import Record

__all__ = [
    "MAX_ACTIVATIONS",
    "MAX_PARAMETERS",
    "Activation",
    "Conv",
    "Flatten",
    "GlobalPool",
    "GroupNorm",
    "Layer",
    "Linear",
    "Place",
    "Pool",
    "Residual",
    "Shape",
    "chain",
    "group_count",
]

Shape: TypeAlias = tuple[int, ...]
Width = Annotated[int, Field(ge=1, le=4096)]

MAX_PARAMETERS = 1 << 26
MAX_ACTIVATIONS = 1 << 24  # values after any one layer, of one row


class Linear(Record):
    """Every output from every input, with a bias."""

    layer: Literal["linear"]
    width: Width

    def after(self, shape: Shape, where: str) -> Shape:
        """Return the shape of the output."""
        _require(shape, 1, where, "a flat row: put flatten or global-average-pool before it")
        return (self.width,)


class Conv(Record):
    """A convolution of a square kernel, padded so that stride 1 keeps height and width."""

    layer: Literal["conv"]
    channels: Width
    kernel: Literal[1, 3, 5, 7] = 3
    stride: int = Field(1, ge=1, le=8)

    def after(self, shape: Shape, where: str) -> Shape:
        """Return the shape of the output."""
        _require(shape, 3, where, "an image")
        return (self.channels, *(-(-side // self.stride) for side in shape[1:]))


class GroupNorm(Record):
    """Mean and variance of each group of channels of one row, then a scale and a shift."""

    layer: Literal["group-norm"]
    groups: int = Field(8, ge=1, le=4096)

    def after(self, shape: Shape, where: str) -> Shape:
        """Return the shape of the output."""
        if shape[0] % self.groups:
            raise ValueError(f"{where}: {shape[0]} channels are not {self.groups} groups")
        return shape


class Activation(Record):
    """A function of each value alone."""

    layer: Literal["relu", "gelu", "tanh"]

    def after(self, shape: Shape, where: str) -> Shape:
        """Return the shape of the output."""
        del where
        return shape


class Pool(Record):
    """The largest or the mean value of each square; what does not fill one is dropped."""

    layer: Literal["max-pool", "average-pool"]
    size: int = Field(2, ge=2, le=16)

    def after(self, shape: Shape, where: str) -> Shape:
        """Return the shape of the output."""
        _require(shape, 3, where, "an image")
        if min(shape[1:]) < self.size:
            raise ValueError(f"{where} needs {self.size} pixels a side, found {_say(shape)}")
        return (shape[0], *(side // self.size for side in shape[1:]))


class GlobalPool(Record):
    """The mean of each channel."""

    layer: Literal["global-average-pool"]

    def after(self, shape: Shape, where: str) -> Shape:
        """Return the shape of the output."""
        _require(shape, 3, where, "an image")
        return shape[:1]


class Flatten(Record):
    """All values of a row one after the other."""

    layer: Literal["flatten"]

    def after(self, shape: Shape, where: str) -> Shape:
        """Return the shape of the output."""
        del where
        return (math.prod(shape),)


_Plain = Annotated[
    Linear | Conv | GroupNorm | Activation | Pool | GlobalPool | Flatten,
    Field(discriminator="layer"),
]


class Residual(Record):
    """What its layers make of the input, plus the input; by a 1×1 convolution if shapes differ.

    He et al. 2016, arXiv:1603.05027 (identity mappings; there, too, with a projection).
    """

    layer: Literal["residual"]
    layers: tuple[_Plain, ...] = Field(min_length=1, max_length=16)


Layer = Annotated[
    Linear | Conv | GroupNorm | Activation | Pool | GlobalPool | Flatten | Residual,
    Field(discriminator="layer"),
]


@dataclass(frozen=True, slots=True)
class Place:
    """One layer in its network.

    Attributes:
        name: that its tensors begin with, e.g. "3" or, within a residual, "3.1".
        layer: what stands there.
        before: shape of its input.
        after: shape of its output.
        within: of a residual, its layers.
        shortcut: of a residual, the convolution of its input, None where shapes agree.
    """

    name: str
    layer: Layer
    before: Shape
    after: Shape
    within: tuple[Place, ...] = ()
    shortcut: Place | None = None

    @property
    def entries(self) -> tuple[tuple[str, Shape], ...]:
        """Return name and shape of its tensors, in the order in which they travel."""
        layer, name = self.layer, self.name
        match layer:
            case Linear():
                return ((f"{name}.weight", (*self.after, *self.before)), _bias(name, self.after))
            case Conv():
                kernel = (layer.channels, self.before[0], layer.kernel, layer.kernel)
                return ((f"{name}.weight", kernel), _bias(name, self.after))
            case GroupNorm():
                return ((f"{name}.weight", self.before[:1]), _bias(name, self.before))
            case Residual():
                places = (*self.within, *([self.shortcut] if self.shortcut else []))
                return tuple(entry for place in places for entry in place.entries)
            case _:
                return ()


def chain(layers: Sequence[Layer], inputs: Shape, outputs: int) -> tuple[Place, ...]:
    """Return the places of a network's layers, the linear one to the outputs last.

    Raises:
        ValueError: a layer does not fit what comes before it, or the network is too large; names
            the layer by number, from 1.
    """
    places = _walk(layers, inputs, "", "")
    last = places[-1].after if places else inputs
    places += (_place(Linear(layer="linear", width=outputs), last, str(len(layers)), "outputs"),)
    size = sum(math.prod(shape) for place in places for _, shape in place.entries)
    if size > MAX_PARAMETERS:
        raise ValueError(f"the model has {size} parameters, at most {MAX_PARAMETERS} are possible")
    return places


def group_count(channels: int, most: int = 8) -> int:
    """Return the largest number of equal groups of channels up to ``most``."""
    return max(n for n in range(1, most + 1) if channels % n == 0)


def _walk(layers: Sequence[Layer], shape: Shape, prefix: str, within: str) -> tuple[Place, ...]:
    places: list[Place] = []
    for i, layer in enumerate(layers):
        where = f"{within}layer {i + 1} ({layer.layer})"
        places.append(_place(layer, shape, f"{prefix}{i}", where))
        shape = places[-1].after
        if math.prod(shape) > MAX_ACTIVATIONS:
            raise ValueError(
                f"{where} gives {math.prod(shape)} values a row, at most {MAX_ACTIVATIONS} may be"
            )
    return tuple(places)


def _place(layer: Layer, before: Shape, name: str, where: str) -> Place:
    if isinstance(layer, Residual):
        return _residual(layer, before, name, where)
    return Place(name, layer, before, layer.after(before, where))


def _residual(layer: Residual, before: Shape, name: str, where: str) -> Place:
    within = _walk(layer.layers, before, f"{name}.", f"{where}, ")
    after, shortcut = within[-1].after, None
    if after != before:
        if len(before) != 3 or len(after) != 3:
            raise ValueError(f"{where} begins with {_say(before)} and ends with {_say(after)}")
        stride = max(1, -(-before[1] // after[1]))
        conv = Conv(layer="conv", channels=after[0], kernel=1, stride=stride)
        shortcut = _place(conv, before, f"{name}.shortcut", where)
        if shortcut.after != after:
            raise ValueError(
                f"{where} ends with {_say(after)}; a shortcut of stride {stride} gives"
                f" {_say(shortcut.after)}"
            )
    return Place(name, layer, before, after, within, shortcut)


def _require(shape: Shape, dimensions: int, where: str, what: str) -> None:
    if len(shape) != dimensions:
        raise ValueError(f"{where} needs {what}; found {_say(shape)}")


def _say(shape: Shape) -> str:
    return " × ".join(map(str, shape)) + (" values" if len(shape) == 1 else "")


def _bias(name: str, after: Shape) -> tuple[str, Shape]:
    return f"{name}.bias", after[:1]
