"""Check an update before it counts: at the site before it leaves, at the coordinator on arrival.

Reads the file block by block, so that memory does not grow with the model. The same function
serves both sides of the border; what differs is only what a refusal leads to. What is checked of an
encoded update is what it stands for, and that it has the one form that an encoder gives it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.encodings import BLOCK, blocks_of, decode, require_canonical
from larrey_protocol.errors import Refusal
from larrey_protocol.tensors import MAX_HEADER_BYTES, TensorLayout, parse_header

__all__ = ["UpdateFacts", "check_update", "read_encoded", "require_zeros"]

_BLOCK_BYTES = 1 << 20
_BLOCKS = 64  # of an encoding, decoded at once: 1 MiB of float32
_PREFIX_BYTES = 8 + MAX_HEADER_BYTES


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """What was found in an admissible update."""

    norm: float  # L2
    file_bytes: int


def check_update(descriptor: int, layout: TensorLayout, *, norm_bound: float) -> UpdateFacts:
    """Return the facts of the tensor file behind an open descriptor.

    Args:
        descriptor: readable; its offset is not used.
        layout: what the study says an update looks like; it fixes the size to the byte.
        norm_bound: largest admissible L2 norm (`larrey_protocol.norms.norm_bound`).

    Raises:
        Refusal: ``update-too-large``, ``update-malformed``, ``update-wrong-tensors``,
            ``update-not-finite`` or ``update-over-norm``.
    """
    size = os.fstat(descriptor).st_size
    if size > layout.nbytes:
        raise _no("too-large", f"has {size} bytes, expected {layout.nbytes}")
    header = os.pread(descriptor, len(layout.header), 0)
    if header != layout.header:
        found = parse_header(os.pread(descriptor, _PREFIX_BYTES, 0), file_bytes=size)
        raise _no("wrong-tensors", f"has {len(found.entries)} tensors other than the study's")
    if size != layout.nbytes:
        raise _no("malformed", f"has {size} bytes, expected {layout.nbytes}")
    if layout.encoding == "float32":
        square = _sum_of_squares(descriptor, len(header), size)
    else:
        square = _encoded_squares(descriptor, layout)
    if not math.isfinite(square):
        raise _no("not-finite", "holds NaN or infinity")
    norm = math.sqrt(square)
    if norm > norm_bound:
        raise _no("over-norm", f"has norm {norm:.4g}, at most {norm_bound:.4g} is possible")
    return UpdateFacts(norm, size)


def require_zeros(descriptor: int, layout: TensorLayout, spans: Iterable[tuple[int, int]]) -> None:
    """Return if the file's values are zero, to the bit, in each span of the flat update.

    Args:
        descriptor: of a file that `check_update` admitted.
        layout: as there.
        spans: first value and the one after the last, of each tensor that stays at the site.

    Raises:
        Refusal: ``update-wrong-tensors``.
    """
    for first, end in spans:
        at, stop = (layout.codes_at + n * layout.item_bytes for n in (first, end))
        while at < stop:
            block = _exactly(descriptor, at, min(_BLOCK_BYTES, stop - at))
            if block.count(0) != len(block):
                raise _no("wrong-tensors", "holds values of a tensor that stays at the site")
            at += len(block)


def _sum_of_squares(descriptor: int, offset: int, end: int) -> float:
    """Return the sum of squares in float64; not finite if any element is not."""
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        while offset < end:
            block = os.pread(descriptor, min(_BLOCK_BYTES, end - offset), offset)
            if not block:
                raise _no("malformed", "became shorter while it was read")
            total += _squares(np.frombuffer(block, "<f4"))
            offset += len(block)
    return total


def _encoded_squares(descriptor: int, layout: TensorLayout) -> float:
    """Return the sum of squares of what an encoded file stands for, every block checked."""
    total, out = 0.0, np.empty(_BLOCKS * BLOCK, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, layout.size, out.size):
            values = out[: min(out.size, layout.size - start)]
            scales, codes = read_encoded(descriptor, layout, start, values.size)
            require_canonical(scales, codes)
            total += _squares(decode(scales, codes, values))
    return total


def read_encoded(
    descriptor: int, layout: TensorLayout, start: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.float16] | NDArray[np.int8]]:
    """Return scales and codes of ``count`` values from ``start``, the first of a block.

    Raises:
        Refusal: ``update-malformed`` if the file became shorter.
    """
    first, blocks = start // BLOCK, blocks_of(count)
    scales = np.frombuffer(_exactly(descriptor, len(layout.header) + 4 * first, 4 * blocks), "<f4")
    item = layout.item_bytes
    data = _exactly(descriptor, layout.codes_at + start * item, count * item)
    if layout.encoding == "float16":
        return scales, np.frombuffer(data, "<f2")
    return scales, np.frombuffer(data, np.int8)


def _exactly(descriptor: int, offset: int, count: int) -> bytes:
    data = os.pread(descriptor, count, offset)
    if len(data) != count:
        raise _no("malformed", "became shorter while it was read")
    return data


def _squares(values: NDArray[np.float32]) -> float:
    part = float(np.dot(values, values))
    if math.isfinite(part):
        return part
    wide = values.astype(np.float64)  # float32 overflow of finite values, or truly not finite
    return float(np.dot(wide, wide))


def _no(kind: str, what: str) -> Refusal:
    return Refusal(f"update-{kind}", f"the update {what}", "It is not sent and not counted.")
