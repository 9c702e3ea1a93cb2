"""Local tensors: parts of the model that each site trains for itself and never sends.

Li, Jiang, Zhang, Kamp, Dou 2021, "FedBN: federated learning on non-IID features via local batch
normalization", algorithm 1, https://arxiv.org/abs/2102.07623; with any layer in place of batch
normalisation Arivazhagan, Aggarwal, Singh, Choudhary 2019, "Federated learning with personalization
layers", https://arxiv.org/abs/1912.00818. A study names them by patterns, ``local = ["0.*"]``.

Local tensors take part in the same noised steps, under the one clip over all tensors, so that they
are paid for like the rest and what is sent depends on nothing that was not (P18). An update is zero
there, which the site's border checks; the coordinator's model keeps its first values there.
Departure: the objective adds nothing there, as there is no common value to pull to; the algorithm
of the other tensors may be any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from larrey_protocol.errors import Refusal
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_strategies.contract import Vector

__all__ = ["Span", "gathered", "local_names", "local_spans", "scattered", "shared_size"]

Span = tuple[int, int]  # first of a tensor's values in the flat model, and the one after its last


def local_names(study: Study) -> tuple[str, ...]:
    """Return the tensors that stay at the sites, in layout order; mostly none.

    Raises:
        Refusal: ``local-tensors-unfit``: a pattern fits no tensor, or nothing is left to share.
    """
    patterns = study.file.training.local
    names = [name for name, _ in model_layout(study).entries]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise _unfit(f"no tensor of the model is called '{pattern}'", names)
    chosen = tuple(name for name in names if any(fnmatchcase(name, p) for p in patterns))
    if len(chosen) == len(names):
        raise _unfit("all tensors stay at the sites, so that none is learnt together", names)
    return chosen


def local_spans(study: Study) -> tuple[Span, ...]:
    """Return where the local tensors lie in the flat model, rising.

    Raises:
        Refusal: as `local_names`.
    """
    if not study.file.training.local:
        return ()
    chosen, entries = set(local_names(study)), model_layout(study).entries
    edges = pairwise(accumulate((prod(shape) for _, shape in entries), initial=0))
    return tuple(edge for (name, _), edge in zip(entries, edges, strict=True) if name in chosen)


def shared_size(study: Study) -> int:
    """Return of how many values an update can be other than zero.

    Raises:
        Refusal: as `local_names`.
    """
    return model_layout(study).size - sum(end - first for first, end in local_spans(study))


def gathered(flat: Vector, spans: Sequence[Span]) -> Vector:
    """Return the values of the local tensors alone, one after the other."""
    parts = [flat[first:end] for first, end in spans]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def scattered(flat: Vector, spans: Sequence[Span], values: Vector | None = None) -> Vector:
    """Return ``flat`` with ``values`` in place of the local tensors, zeros where there are none."""
    if not spans:
        return flat
    made = flat.copy()
    for (first, end), part in zip(spans, _parts(spans, values), strict=True):
        made[first:end] = part
    return made


def _parts(spans: Sequence[Span], values: Vector | None) -> Iterator[Vector | float]:
    done = 0
    for first, end in spans:
        yield 0.0 if values is None else values[done : done + end - first]
        done += end - first


def _unfit(what: str, names: Sequence[str]) -> Refusal:
    shown = ", ".join(f"'{name}'" for name in names[:12])
    return Refusal("local-tensors-unfit", what, f"Correct training.local; there are {shown}.")
