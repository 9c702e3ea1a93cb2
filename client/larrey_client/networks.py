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

from larrey_protocol.errors import Refusal
from larrey_protocol.model_file import Packaged
from larrey_protocol.models import layer_sizes
from larrey_protocol.study import Study

__all__ = ["build", "export_flat", "load_flat"]


def build(study: Study) -> nn.Sequential:
    """Return the study's network, its parameters zero; it gives "(rows, outputs)".

    Raises:
        Refusal: ``model-not-installed`` for a packaged model that this site does not have.
    """
    model = study.file.model
    if isinstance(model, Packaged):
        raise Refusal(
            "model-not-installed",
            f"the study needs the model package '{model.package}'",
            "Ask the consortium for the wheel.",
        )
    return _dense(list(pairwise(layer_sizes(study.contract, model))))


def _dense(sizes: list[tuple[int, int]]) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inputs, outputs) in enumerate(sizes):
        # By way of "meta", so that torch's global random generator stays untouched; `to_empty`
        # would import sympy, half a second of every trainer's start.
        layer = nn.Linear(inputs, outputs, device="meta")
        layer.weight = nn.Parameter(torch.zeros(outputs, inputs))
        layer.bias = nn.Parameter(torch.zeros(outputs))
        parts[str(i)] = layer
        if i < len(sizes) - 1:
            parts[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(parts)


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
