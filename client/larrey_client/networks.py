"""The torch modules behind the models of the registry.

Names, shapes and order of the parameters are those of `larrey_protocol.models.model_layout`; a
contract test holds the two together. Initial values never come from here: the model arrives.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from larrey_privacy import blocks
from larrey_protocol.layers import (
    Conv,
    Flatten,
    GlobalPool,
    GroupNorm,
    Linear,
    Place,
    Pool,
    Residual,
)
from larrey_protocol.model_file import Dense, layer_sizes, places
from larrey_protocol.study import Study

__all__ = ["build", "export_flat", "load_flat"]

# Layers are made without values, so that torch's global random generator stays untouched;
# `to_empty` would import sympy, half a second of every trainer's start.
_NOWHERE = "meta"
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def build(study: Study) -> nn.Sequential:
    """Return the study's network, its parameters zero; it gives "(rows, outputs)"."""
    model = study.file.model
    if isinstance(model, Dense):
        return _dense(list(pairwise(layer_sizes(study.contract, model))))
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if (image := study.contract.image) is not None:
        parts["image"] = blocks.Picture(image.height, image.width, image.channels)
    parts |= {place.name: _module(place) for place in places(study.contract, model)}
    return _zeroed(nn.Sequential(parts))


def _dense(sizes: list[tuple[int, int]]) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inputs, outputs) in enumerate(sizes):
        parts[str(i)] = nn.Linear(inputs, outputs, device=_NOWHERE)
        if i < len(sizes) - 1:
            parts[f"relu{i}"] = nn.ReLU()
    return _zeroed(nn.Sequential(parts))


def _residual(place: Place) -> blocks.Residual:
    last = [place.shortcut] if place.shortcut else []
    parts = {one.name.rpartition(".")[2]: _module(one) for one in (*place.within, *last)}
    return blocks.Residual(parts, deep=len(place.within))


def _module(place: Place) -> nn.Module:  # noqa: PLR0911 - one return a layer
    layer = place.layer
    match layer:
        case Linear():
            return nn.Linear(place.before[0], layer.width, device=_NOWHERE)
        case Conv():
            inputs, size = place.before[0], layer.kernel
            return nn.Conv2d(
                inputs, layer.channels, size, layer.stride, padding=size // 2, device=_NOWHERE
            )
        case GroupNorm():
            return nn.GroupNorm(layer.groups, place.before[0], device=_NOWHERE)
        case Pool():
            pool = nn.MaxPool2d if layer.layer == "max-pool" else nn.AvgPool2d
            return pool(layer.size)
        case GlobalPool():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case Flatten():
            return nn.Flatten()
        case Residual():
            return _residual(place)
        case _:
            return _ACTIVATIONS[layer.layer]()


def _zeroed(network: nn.Sequential) -> nn.Sequential:
    """Return the network with zeros for what has no values yet."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.zeros(parameter.shape)))
    return network


def load_flat(network: nn.Module, flat: NDArray[np.float32]) -> None:
    """Copy a flat vector, in layout order, into the network's parameters."""
    source = torch.from_numpy(flat)
    done = 0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(source[done : done + parameter.numel()].view_as(parameter))
            done += parameter.numel()
    if done != flat.size:
        raise ValueError(f"the network has {done} parameters, the vector {flat.size}")


def export_flat(network: nn.Module) -> NDArray[np.float32]:
    """Return a copy of the parameters as one flat vector, in layout order."""
    with torch.no_grad():
        flat = torch.cat([parameter.flatten() for parameter in network.parameters()])
    values: NDArray[np.float32] = flat.cpu().numpy()
    return values
