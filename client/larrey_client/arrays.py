"""Between the flat buffer that travels and the named arrays that a Flower app sees. No torch.

Flower keeps an array as the bytes of a ``.npy`` file. We write and read that form directly around
the raw values: one copy each way, where numpy's own writer and reader make several.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html (version 1.0).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray

from larrey_protocol.errors import LarreyError
from larrey_protocol.tensors import TensorLayout

__all__ = ["flat_of", "record_of", "tensors_of"]

_STYPE = "numpy.ndarray"  # Flower's name for the .npy form
_PREFIX = 10  # bytes: magic, version 1.0, length of the header's text


def record_of(layout: TensorLayout, flat: NDArray[np.float32]) -> ArrayRecord:
    """Return named arrays with the values of ``flat``, in layout order."""
    named: dict[str, Array] = {}
    raw = np.ascontiguousarray(flat, "<f4").view(np.uint8).data
    offset = 0
    for name, shape in layout.entries:
        end = offset + 4 * math.prod(shape)
        data = b"".join((_npy_header(shape), raw[offset:end]))
        named[name] = Array("float32", shape, _STYPE, data)
        offset = end
    return ArrayRecord(named)


def tensors_of(record: ArrayRecord, layout: TensorLayout) -> Iterator[NDArray[np.floating]]:
    """Give the record's arrays in layout order, without a copy where they are plain.

    Raises:
        LarreyError: ``reply-wrong-tensors`` unless names and shapes are exactly the layout's and
            the values are floating point.
    """
    if set(record) != {name for name, _ in layout.entries}:
        raise _wrong("has other tensors than the model")
    for name, shape in layout.entries:
        values = _view(record[name])
        if values.shape != shape or values.dtype.kind != "f":
            raise _wrong("has a tensor of another shape or type than the model's")
        yield values


def flat_of(record: ArrayRecord, layout: TensorLayout) -> NDArray[np.float32]:
    """Return the record's values as one flat vector; raises as `tensors_of`."""
    flat = np.empty(layout.size, np.float32)
    for values, place in zip(tensors_of(record, layout), layout.views(flat), strict=True):
        place[...] = values
    return flat


@lru_cache(maxsize=256)
def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _view(array: Array) -> NDArray[Any]:  # Any: the type is what the caller checks
    """Return the array behind ``.npy`` bytes, sharing them."""
    if array.stype != _STYPE:
        raise _wrong("has an array in a foreign encoding")
    data = array.data
    begin = _PREFIX + int.from_bytes(data[_PREFIX - 2 : _PREFIX], "little")
    try:
        shape, is_fortran, kind = _read_npy_header(data[:begin])
        values = np.frombuffer(data, kind, math.prod(shape), begin)
    except ValueError as error:
        raise _wrong("has an unreadable array") from error
    return values.reshape(shape, order="F" if is_fortran else "C")


@lru_cache(maxsize=256)  # a simulation reads the same few headers a thousand times a round
def _read_npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(header)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("expected version 1.0, the only one for plain arrays")
    return npy.read_array_header_1_0(stream)


def _wrong(what: str) -> LarreyError:
    return LarreyError(
        "reply-wrong-tensors", f"the app's answer {what}", "Correct the app; nothing was sent."
    )
