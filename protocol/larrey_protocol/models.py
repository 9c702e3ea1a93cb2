"""Which tensors a study's model has, and its public initial values. No torch.

The coordinator needs names, shapes and a starting point; the trainer builds the torch module with
the same names (`larrey_client.networks`), and a contract test holds the two together.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.encodings import Encoding
from larrey_protocol.model_file import Dense, Entries
from larrey_protocol.study import Study
from larrey_protocol.tensors import TensorLayout

__all__ = ["initial_parameters", "model_layout", "phase_layout", "request_layout"]


def model_layout(study: Study) -> TensorLayout:
    """Return the model's tensors in the order in which they travel."""
    return _layout(study.tensors)


def request_layout(study: Study, shared: tuple[str, ...] = ()) -> TensorLayout:
    """Return the file that sites fetch: the model's tensors, then the shared vectors.

    Args:
        study: whose model it is.
        shared: names of what of the coordinator's state travels with the model, each a vector of
            the model's size; without any the file is the model's own.
    """
    layout = model_layout(study)
    if not shared:
        return layout
    vectors = tuple((f"shared.{name}", (layout.size,)) for name in shared)
    return TensorLayout((*layout.entries, *vectors))


def phase_layout(study: Study, phase: str) -> TensorLayout:
    """Return what a site answers in a phase: tensors like the model's, or one number a metric.

    Updates are encoded as the study says, metrics never.
    """
    if phase == "train":
        return _layout(study.tensors, study.file.training.encoding)
    return TensorLayout(tuple((name, (1,)) for name in study.file.training.metrics))


def initial_parameters(study: Study) -> NDArray[np.float32]:
    """Return the flat public starting point: zeros for one layer, He-uniform weights for more.

    He et al. 2015, arXiv:1502.01852, equation 10, as a uniform law, over all dimensions but the
    first; a weight of one dimension is a norm's scale and one; biases are zero.
    """
    layout, model = model_layout(study), study.file.model
    flat = np.zeros(layout.size, np.float32)
    if isinstance(model, Dense) and not model.hidden:
        return flat
    random = np.random.Generator(np.random.PCG64(model.seed))
    for (name, shape), view in zip(layout.entries, layout.views(flat), strict=True):
        if not name.endswith("weight"):
            continue
        if len(shape) == 1:
            view.fill(1.0)
        elif shape:
            limit = (6.0 / math.prod(shape[1:])) ** 0.5
            random.random(dtype=np.float32, out=view)  # in place: no second copy of a large model
            np.subtract(view, np.float32(0.5), out=view)
            np.multiply(view, np.float32(2 * limit), out=view)
    return flat


@lru_cache(maxsize=64)  # a layout keeps its header, which each request is compared with
def _layout(entries: Entries, encoding: Encoding = "float32") -> TensorLayout:
    return TensorLayout(entries, encoding)
