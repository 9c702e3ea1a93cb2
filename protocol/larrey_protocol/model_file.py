"""The ``[model]`` of a study: which family of networks, and what its members differ in.

Each kind says what it needs and nothing more; `tensors_of` derives the tensors from it,
`larrey_client.networks` the torch module.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from larrey_protocol.contract import Contract
from larrey_protocol.layers import (
    Activation,
    Conv,
    Flatten,
    GlobalPool,
    GroupNorm,
    Layer,
    Linear,
    Place,
    Pool,
    Residual,
    chain,
    group_count,
)
from larrey_protocol.tasks import output_count
from larrey_protocol.tomlfile import Record

__all__ = [
    "Convolutional",
    "Dense",
    "Entries",
    "LayerList",
    "Layered",
    "Model",
    "ResNet",
    "kinds",
    "layer_sizes",
    "places",
    "tensors_of",
]

Entries: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]  # name and shape of each tensor
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # of the public initial values; never reaches noise
Width = Annotated[int, Field(ge=1, le=4096)]


class Dense(Record):
    """A linear model, or a multi-layer perceptron with rectifiers."""

    name: Literal["logistic", "mlp"]
    hidden: tuple[Width, ...] = Field((), max_length=64)
    seed: Seed = 0

    @model_validator(mode="after")
    def _hidden_fits(self) -> Dense:
        if (self.name == "mlp") != bool(self.hidden):
            raise ValueError("hidden = [...] belongs to model mlp and only to it")
        return self


class LayerList(Record):
    """A network written layer by layer, ``[[model.layers]]``; the last, linear one is added."""

    name: Literal["layers"]
    layers: tuple[Layer, ...] = Field(max_length=256)
    seed: Seed = 0

    @property
    def chain(self) -> tuple[Layer, ...]:
        """Return its layers."""
        return self.layers


class Convolutional(Record):
    """A small convolutional network: a stage for each entry of ``channels``, then a hidden layer.

    A stage is a 3×3 convolution, group norm, a rectifier and a 2×2 maximum.
    """

    name: Literal["cnn"]
    channels: tuple[Width, ...] = Field((16, 32), min_length=1, max_length=10)
    hidden: int = Field(0, ge=0, le=4096)  # 0: none
    seed: Seed = 0

    @property
    def chain(self) -> tuple[Layer, ...]:
        """Return its layers."""
        stages = [
            layer
            for width in self.channels
            for layer in (
                Conv(layer="conv", channels=width),
                *_normed(width),
                Pool(layer="max-pool"),
            )
        ]
        flat = (*stages, Flatten(layer="flatten"))
        if not self.hidden:
            return flat
        return (*flat, Linear(layer="linear", width=self.hidden), Activation(layer="relu"))


class ResNet(Record):
    """A small residual network with group norm before each convolution.

    He et al. 2016, arXiv:1603.05027, with group norm in place of batch norm. Stage i has
    ``blocks[i]`` blocks of ``width * 2**i`` channels; each stage but the first halves the sides.
    """

    name: Literal["resnet"]
    width: int = Field(16, ge=1, le=512)
    blocks: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field(
        (1, 1, 1), min_length=1, max_length=4
    )
    seed: Seed = 0

    @property
    def chain(self) -> tuple[Layer, ...]:
        """Return its layers."""
        layers: list[Layer] = [Conv(layer="conv", channels=self.width)]
        before = self.width
        for stage, count in enumerate(self.blocks):
            width = self.width * 2**stage
            for block in range(count):
                stride = 2 if stage and not block else 1
                inner = (
                    *_normed(before),
                    Conv(layer="conv", channels=width, stride=stride),
                    *_normed(width),
                    Conv(layer="conv", channels=width),
                )
                layers.append(Residual(layer="residual", layers=inner))
                before = width
        return (*layers, *_normed(before), GlobalPool(layer="global-average-pool"))


def _normed(channels: int) -> tuple[GroupNorm, Activation]:
    groups = group_count(channels)
    return GroupNorm(layer="group-norm", groups=groups), Activation(layer="relu")


Layered = LayerList | Convolutional | ResNet  # what is a chain of layers
Model = Annotated[Dense | LayerList | Convolutional | ResNet, Field(discriminator="name")]


def tensors_of(contract: Contract, model: Model) -> Entries:
    """Return name and shape of each parameter, in the order in which they travel.

    Raises:
        ValueError: a layer does not fit what comes before it.
    """
    if not isinstance(model, Dense):
        return tuple(entry for place in places(contract, model) for entry in place.entries)
    entries: list[tuple[str, tuple[int, ...]]] = []
    for i, (inputs, outputs) in enumerate(pairwise(layer_sizes(contract, model))):
        entries += [(f"{i}.weight", (outputs, inputs)), (f"{i}.bias", (outputs,))]
    return tuple(entries)


def layer_sizes(contract: Contract, model: Dense) -> tuple[int, ...]:
    """Return the widths of a dense network from input to output."""
    return (contract.feature_count, *model.hidden, output_count(contract))


def kinds(model: Layered) -> list[str]:
    """Return what the layers are, equal neighbours counted, for whoever reads the study."""
    runs = [(kind, len(list(run))) for kind, run in groupby(one.layer for one in model.chain)]
    return [kind if count == 1 else f"{count} {kind}" for kind, count in runs]


def places(contract: Contract, model: Layered) -> tuple[Place, ...]:
    """Return the places of a layered network's layers, the one to the outputs last.

    Raises:
        ValueError: a layer does not fit what comes before it.
    """
    image = contract.image
    shape = (image.channels, image.height, image.width) if image else (contract.feature_count,)
    return chain(model.chain, shape, output_count(contract))
