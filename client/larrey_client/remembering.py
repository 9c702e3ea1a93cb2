"""The site's half of a study's algorithm as pure functions of vectors: what comes, what is kept.

What a site keeps between rounds is computed here and only here, from released values: the model and
what came with it, the update as the coordinator reads it, and what was kept before. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.encodings import decode, encode
from larrey_protocol.models import initial_parameters, model_layout, request_layout
from larrey_protocol.study import Study
from larrey_protocol.tensors import TensorLayout
from larrey_strategies.contract import LocalRound, State, Vector
from larrey_strategies.local_tensors import gathered, local_spans, scattered
from larrey_strategies.of_study import algorithm_of, facts_of, site_vectors

__all__ = [
    "KEPT",
    "LOCAL",
    "NOTHING",
    "NOTHING_KNOWN",
    "Known",
    "flat_state",
    "incoming_layout",
    "kept_layout",
    "leaving",
    "next_state",
    "own_model",
    "parted",
    "state_now",
    "state_of",
]

LOCAL = "local"  # of the site's state: the tensors that never leave
KEPT = "larrey-kept"  # record of Flower's context with what the site keeps
NOTHING: State = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What an algorithm knows at a site beside the round's model.

    Attributes:
        shared: the coordinator's vectors that came with the model.
        state: what the site keeps; empty before its first round.
    """

    shared: State
    state: State


NOTHING_KNOWN = Known(NOTHING, NOTHING)


def incoming_layout(study: Study) -> TensorLayout:
    """Return the layout of the file that a request brings."""
    return request_layout(study, algorithm_of(study).shared)


def parted(study: Study, flat: NDArray[np.float32]) -> tuple[Vector, State]:
    """Return the model and the coordinator's vectors in what a request brought, not copied."""
    size, names = model_layout(study).size, algorithm_of(study).shared
    parts = [flat[at : at + size] for at in range(0, len(flat), size)]
    return parts[0], dict(zip(names, parts[1:], strict=True))


def kept_layout(study: Study) -> TensorLayout:
    """Return the layout of the file of what a site keeps; no entries where it keeps nothing."""
    size = model_layout(study).size
    entries = [(name, (size,)) for name in site_vectors(algorithm_of(study))]
    if own := sum(end - first for first, end in local_spans(study)):
        entries.append((LOCAL, (own,)))
    return TensorLayout(tuple(entries))


def state_of(layout: TensorLayout, flat: NDArray[np.float32]) -> State:
    """Return the named vectors of a kept file's values, not copied."""
    names = [name for name, _ in layout.entries]
    return dict(zip(names, layout.views(flat), strict=True))


def flat_state(layout: TensorLayout, state: Mapping[str, Vector]) -> NDArray[np.float32]:
    """Return the values of a kept file."""
    return np.concatenate([state[name] for name, _ in layout.entries])


def next_state(study: Study, *, start: Vector, known: Known, delta: Vector) -> State:
    """Return what the site keeps once its update of this round was applied.

    Args:
        study: as approved.
        start: the model that the round began with.
        known: what came with it, and what is kept now.
        delta: what training moved, local tensors too, clipped and noised, not yet encoded.
    """
    algorithm, spans, now = algorithm_of(study), local_spans(study), state_now(study, known)
    sent = _as_read(study, scattered(delta, spans))
    after = dict(algorithm.site_step(now, LocalRound(start, sent, known.shared, facts_of(study))))
    if spans:
        after[LOCAL] = now[LOCAL] + gathered(delta, spans)
    return after


def own_model(study: Study, start: Vector, known: Known) -> Vector:
    """Return the model that the site goes on from, which is its own where it keeps one."""
    now = state_now(study, known)
    begin = algorithm_of(study).begin(start, now)
    return scattered(begin, local_spans(study), now.get(LOCAL))


def leaving(study: Study, delta: Vector) -> Vector:
    """Return what leaves of an update: zeros for the tensors that stay."""
    return scattered(delta, local_spans(study))


def state_now(study: Study, known: Known) -> State:
    """Return what the site keeps now; before its first round, what follows from the first model."""
    if known.state or not kept_layout(study).entries:
        return known.state
    first, spans = initial_parameters(study), local_spans(study)
    state = dict(algorithm_of(study).site_init(first))
    return state | {LOCAL: gathered(first, spans)} if spans else state


def _as_read(study: Study, delta: Vector) -> Vector:
    """Return an update as the coordinator reads it: encoded and decoded."""
    encoding = study.file.training.encoding
    if encoding == "float32":
        return delta
    scales, codes = encode(encoding, delta)
    return decode(scales, codes, np.empty_like(delta))
