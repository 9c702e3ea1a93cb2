"""The wire form of a model or an update: a safetensors file of float32 tensors without gaps.

Eight bytes of header length, a JSON header, one contiguous little-endian buffer. We write the
header deterministically and read it strictly: what is not exactly the expected layout is refused,
so that a hostile file can neither allocate nor alias memory.
Format: https://huggingface.co/docs/safetensors ("Format").
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.errors import Refusal

__all__ = ["MAX_HEADER_BYTES", "TensorLayout", "pack", "parse_header"]

MAX_HEADER_BYTES = 1 << 20
_ITEM = 4  # bytes of a float32


@dataclass(frozen=True)
class TensorLayout:
    """Names and shapes of float32 tensors, in the order of the flat buffer."""

    entries: tuple[tuple[str, tuple[int, ...]], ...]

    @cached_property
    def size(self) -> int:
        """Return the number of parameters."""
        return sum(math.prod(shape) for _, shape in self.entries)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the whole file, header included."""
        return len(self.header) + self.size * _ITEM

    @cached_property
    def header(self) -> bytes:
        """Return the file's first bytes: length and JSON, padded to a multiple of eight."""
        table, offset = {}, 0
        for name, shape in self.entries:
            end = offset + math.prod(shape) * _ITEM
            table[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def views(self, flat: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return writable views of ``flat`` with the tensors' shapes, in order."""
        if flat.shape != (self.size,):
            raise ValueError(f"expected a flat array of {self.size}, found shape {flat.shape}")
        views, offset = [], 0
        for _, shape in self.entries:
            end = offset + math.prod(shape)
            views.append(flat[offset:end].reshape(shape))
            offset = end
        return views


def pack(layout: TensorLayout, flat: NDArray[np.float32]) -> bytes:
    """Return the file of ``flat``, a float32 vector of ``layout.size``."""
    if flat.dtype != np.float32 or flat.shape != (layout.size,):
        raise ValueError(f"expected float32 ({layout.size},), found {flat.dtype} {flat.shape}")
    return layout.header + flat.astype("<f4", copy=False).tobytes()


def parse_header(prefix: bytes, *, file_bytes: int) -> TensorLayout:
    """Return the layout that a file's first bytes declare.

    Args:
        prefix: at least the complete header.
        file_bytes: size of the whole file; the tensors must fill it exactly.

    Raises:
        Refusal: ``update-malformed`` for anything but contiguous float32 tensors in order.
    """
    if len(prefix) < 8:
        raise _malformed("is shorter than eight bytes")
    length = int.from_bytes(prefix[:8], "little")
    if not 2 <= length <= MAX_HEADER_BYTES or len(prefix) < 8 + length:
        raise _malformed(f"declares a header of {length} bytes")
    try:
        table = json.loads(prefix[8 : 8 + length])
        entries = tuple((name, _shape(row)) for name, row in table.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _malformed("has an unreadable header") from error
    layout = TensorLayout(entries)
    if prefix[: 8 + length] != layout.header or layout.nbytes != file_bytes:
        raise _malformed("is not a gapless float32 file of the declared size")
    return layout


def _shape(row: dict[str, object]) -> tuple[int, ...]:
    shape = row["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError("shape")
    return tuple(shape)


def _malformed(what: str) -> Refusal:
    return Refusal("update-malformed", f"the tensor file {what}", "Send a file as the study says.")
