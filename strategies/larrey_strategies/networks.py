"""The mean of the middle values of each coordinate, by a network of compare-exchanges.

A network is a fixed sequence of minima and maxima of two vectors, so that whole blocks are worked
on at once and nothing branches on a value. Batcher's odd-even merge sort (Knuth, The Art of
Computer Programming 3, section 5.3.4, algorithm M; any number of inputs) is cut down to what the
middle needs: a comparison whose results nobody asks for falls away, one of two results is made
where one is asked for, and values that are only summed are not put in order.
A NaN makes its coordinate NaN; updates are checked before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from larrey_strategies.contract import Vector

__all__ = ["Network", "Step", "mean_of_middle", "middle"]

_LONGEST = 16384  # elements a step works on: less, and numpy's calls cost more than the work
_SHORTEST = 1024
_BUFFERS = 1 << 19  # elements of all buffers together: 2 MiB, of the second-level cache's size


@dataclass(frozen=True, slots=True)
class Step:
    """The elementwise smaller or larger of two slots, written to a third (or to one of both)."""

    is_low: bool
    a: int
    b: int
    out: int


@dataclass(frozen=True, slots=True)
class Network:
    """Steps over slots: the inputs, which are never written, then ``buffers`` more.

    Attributes:
        steps: in order.
        buffers: slots beside the inputs.
        found: the slots that hold the middle values afterwards, in no particular order.
    """

    steps: tuple[Step, ...]
    buffers: int
    found: tuple[int, ...]


def mean_of_middle(blocks: Sequence[Vector], cut: int, *, out: Vector) -> Vector:
    """Return ``out``, now the mean without the ``cut`` smallest and largest of each coordinate."""
    network = middle(len(blocks), cut)
    piece = min(_LONGEST, max(_SHORTEST, _BUFFERS // (network.buffers + 1)))
    buffers = [np.empty(min(piece, out.size), np.float32) for _ in range(network.buffers)]
    for start in range(0, out.size, piece):
        target = out[start : start + piece]
        slots = [block[start : start + piece] for block in blocks]
        slots += [buffer[: target.size] for buffer in buffers]
        _run(network, slots, target)
    return out


def _run(network: Network, slots: Sequence[Vector], out: Vector) -> None:
    for step in network.steps:
        pick = np.minimum if step.is_low else np.maximum
        pick(slots[step.a], slots[step.b], out=slots[step.out])
    np.copyto(out, slots[network.found[0]])
    for slot in network.found[1:]:
        np.add(out, slots[slot], out=out)
    np.divide(out, np.float32(len(network.found)), out=out)
    np.add(out, np.float32(0), out=out)  # which of two zeros is smaller is nobody's promise


@lru_cache(maxsize=64)
def middle(values: int, cut: int) -> Network:
    """Return the network for all but the ``cut`` smallest and largest of some values.

    Raises:
        ValueError: nothing is left.
    """
    if not 0 <= 2 * cut < values:
        raise ValueError(f"cannot leave out {cut} at each end of {values} values")
    wires = range(cut, values - cut)
    return _with_slots(values, _needed(list(_batcher(values)), wires), wires)


def _batcher(values: int) -> Iterator[tuple[int, int]]:
    """Yield the compare-exchanges that sort: the first wire gets the smaller value."""
    p = 1
    while p < values:
        k = p
        while k >= 1:
            for j in range(k % p, values - k, 2 * k):
                for i in range(j, min(j + k, values - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        yield i, i + k
            k //= 2
        p *= 2


def _needed(
    exchanges: Sequence[tuple[int, int]], wires: Sequence[int]
) -> list[tuple[int, int, bool, bool]]:
    """Return what the values on ``wires``, in any order, need: (i, j, smaller, larger)."""
    live, summed, kept = set(wires), set(wires), []
    for i, j in reversed(exchanges):
        if {i, j} <= summed or not {i, j} & live:
            continue
        kept.append((i, j, i in live, j in live))
        live |= {i, j}
        summed -= {i, j}
    return kept[::-1]


def _with_slots(
    values: int, exchanges: Sequence[tuple[int, int, bool, bool]], wires: Sequence[int]
) -> Network:
    """Give each result a slot, one that is free again where there is one."""
    place, free, steps, total = list(range(values)), list[int](), list[Step](), values
    for i, j, smaller, larger in exchanges:
        a, b = place[i], place[j]
        used = [slot for slot in (a, b) if slot >= values]  # the inputs stay as they are
        if smaller and larger:
            low, total = (free.pop(), total) if free else (total, total + 1)
            steps.append(Step(True, a, b, low))
            place[i] = low
        if not used:
            used, total = ([free.pop()], total) if free else ([total], total + 1)
        steps.append(Step(not larger, a, b, used[0]))
        place[j if larger else i] = used[0]
        free += used[1:]
    return Network(tuple(steps), total - values, tuple(place[wire] for wire in wires))
