"""The wire form of a model or an update: a safetensors file of tensors without gaps.

Eight bytes of header length, a JSON header, one contiguous little-endian buffer. We write the
header deterministically and read it strictly: what is not exactly the expected layout is refused,
so that a hostile file can neither allocate nor alias memory. Models are float32; an update whose
study says so is encoded (`larrey_protocol.encodings`): the tensor ``scales`` comes first then.
Format: https://huggingface.co/docs/safetensors ("Format").
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.encodings import ITEM_BYTES, Encoding, blocks_of, encode
from larrey_protocol.errors import Refusal

__all__ = ["MAX_HEADER_BYTES", "SCALES", "TensorLayout", "pack", "parse_header"]

MAX_HEADER_BYTES = 1 << 20
SCALES = "scales"  # the tensor with one float32 a block; no tensor of a model is called so
_SCALE_BYTES = 4
_TYPES: dict[Encoding, str] = {"float32": "F32", "float16": "F16", "int8": "I8"}


@dataclass(frozen=True)
class TensorLayout:
    """Names and shapes of tensors, in the order of the flat buffer, and how values are encoded.

    ``size`` and `views` are about the values, ``nbytes`` and ``header`` about the file.
    """

    entries: tuple[tuple[str, tuple[int, ...]], ...]
    encoding: Encoding = "float32"

    @cached_property
    def size(self) -> int:
        """Return the number of parameters."""
        return sum(math.prod(shape) for _, shape in self.entries)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the whole file, header included."""
        return self.codes_at + self.size * self.item_bytes

    @property
    def item_bytes(self) -> int:
        """Return the bytes of one value, its share of a scale not counted."""
        return ITEM_BYTES[self.encoding]

    @property
    def scales_bytes(self) -> int:
        """Return the bytes of all scales, 0 where values are float32."""
        return 0 if self.encoding == "float32" else blocks_of(self.size) * _SCALE_BYTES

    @property
    def codes_at(self) -> int:
        """Return at which byte of the file the values begin; scales lie between header and it."""
        return len(self.header) + self.scales_bytes

    @cached_property
    def header(self) -> bytes:
        """Return the file's first bytes: length and JSON, padded to a multiple of eight."""
        table, offset = {}, self.scales_bytes
        if self.encoding != "float32":
            table[SCALES] = _row("F32", (blocks_of(self.size),), 0, offset)
        for name, shape in self.entries:
            end = offset + math.prod(shape) * self.item_bytes
            table[name] = _row(_TYPES[self.encoding], shape, offset, end)
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
    """Return the file of ``flat``, a float32 vector of ``layout.size``, encoded as the layout says.

    Raises:
        ValueError: ``flat`` is another kind of vector.
    """
    if flat.dtype != np.float32 or flat.shape != (layout.size,):
        raise ValueError(f"expected float32 ({layout.size},), found {flat.dtype} {flat.shape}")
    if layout.encoding == "float32":
        return layout.header + flat.astype("<f4", copy=False).tobytes()
    scales, codes = encode(layout.encoding, flat)
    little = codes.astype(codes.dtype.newbyteorder("<"), copy=False)
    return layout.header + scales.astype("<f4", copy=False).tobytes() + little.tobytes()


def parse_header(prefix: bytes, *, file_bytes: int) -> TensorLayout:
    """Return the layout that a file's first bytes declare.

    Args:
        prefix: at least the complete header.
        file_bytes: size of the whole file; the tensors must fill it exactly.

    Raises:
        Refusal: ``update-malformed`` for anything but contiguous tensors in order, of one type
            that an encoding has, with the scales that it needs.
    """
    if len(prefix) < 8:
        raise _malformed("is shorter than eight bytes")
    length = int.from_bytes(prefix[:8], "little")
    if not 2 <= length <= MAX_HEADER_BYTES or len(prefix) < 8 + length:
        raise _malformed(f"declares a header of {length} bytes")
    try:
        table = json.loads(prefix[8 : 8 + length])
        encoding = _encoding(table)
        skip = () if encoding == "float32" else (SCALES,)
        entries = tuple((name, _shape(row)) for name, row in table.items() if name not in skip)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _malformed("has an unreadable header") from error
    layout = TensorLayout(entries, encoding)
    if prefix[: 8 + length] != layout.header or layout.nbytes != file_bytes:
        raise _malformed("is not a gapless file of the declared size")
    return layout


def _row(kind: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, object]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


def _encoding(table: dict[str, dict[str, object]]) -> Encoding:
    """Return what the first tensor's type says; the comparison of the header decides."""
    kinds = {kind: encoding for encoding, kind in _TYPES.items()}
    first = next((row["dtype"] for name, row in table.items() if name != SCALES), "F32")
    return kinds[str(first)]


def _shape(row: dict[str, object]) -> tuple[int, ...]:
    shape = row["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError("shape")
    return tuple(shape)


def _malformed(what: str) -> Refusal:
    return Refusal("update-malformed", f"the tensor file {what}", "Send a file as the study says.")
