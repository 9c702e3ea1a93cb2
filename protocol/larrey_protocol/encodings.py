"""Smaller forms of an update: float16 or int8 values under one float32 scale a block. Pure.

Encoding is a deterministic function of an update that is already clipped and noised. It reads no
row, so that epsilon and delta stay what they were (post-processing). What counts everywhere is the
decoded vector: its norm is checked, it is averaged. A vector that was decoded is encoded to the
same bytes again, decoding is exact in float32, and a block has one form only, the one that
`encode` makes: `require_canonical` refuses any other.

int8: symmetric; scale = largest absolute value of the block / 127, rounded up to 17 bits, so that
each code times its scale is a float32. float16: scale = the power of two that puts the largest
value into [1, 2), so that neither small updates lose bits nor large ones overflow.
Why blocks, why these scales: docs/adr/0016-encoded-updates.md.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.errors import Refusal

__all__ = [
    "BLOCK",
    "ITEM_BYTES",
    "Encoding",
    "blocks_of",
    "decode",
    "encode",
    "norm_growth",
    "require_canonical",
    "worst_error",
]

Encoding = Literal["float32", "float16", "int8"]
BLOCK = 4096  # values under one scale
ITEM_BYTES: dict[str, int] = {"float32": 4, "float16": 2, "int8": 1}
_CODES = 127  # int8 without -128
_SMALLEST = np.float32(2.0**-100)  # a block whose values are all smaller is sent as zeros
_LARGEST_SCALE = np.float32(2.0**120)  # 127 of them, or twice one, are still float32
_LOW_BITS = np.uint32(0x7F)  # of a float32's 24 bits; a scale has 17, a code has 7

Scales = NDArray[np.float32]
Codes = NDArray[np.float16] | NDArray[np.int8]


def blocks_of(size: int) -> int:
    """Return how many blocks ``size`` values make."""
    return -(-size // BLOCK)


def encode(encoding: Encoding, values: NDArray[np.float32]) -> tuple[Scales, Codes]:
    """Return scales and codes of float32 values; the last block may be shorter.

    Values that are not finite, or beyond 2**120, give scales that `require_canonical` refuses.

    Raises:
        ValueError: float32 is no encoding.
    """
    if encoding == "float32":
        raise ValueError("float32 values are not encoded")
    codes: Codes = np.empty(values.size, np.int8)
    if encoding == "float16":
        codes = np.empty(values.size, np.float16)
    scales = np.zeros(blocks_of(values.size), np.float32)
    for index in range(scales.size):
        here = slice(index * BLOCK, (index + 1) * BLOCK)
        scales[index] = _encode_block(encoding, values[here], codes[here])
    return scales, codes


def _encode_block(encoding: Encoding, values: NDArray[np.float32], codes: Codes) -> np.float32:
    largest = np.max(np.abs(values), initial=np.float32(0))
    if not np.isfinite(largest):
        codes[...] = 0
        return np.float32(np.nan)
    if largest < _SMALLEST:
        codes[...] = 0
        return np.float32(0)
    with np.errstate(over="ignore"):
        if encoding == "int8":
            scale = _rounded_up(largest / np.float32(_CODES))
            codes[...] = np.clip(np.rint(values / scale), -_CODES, _CODES)
            return scale
        scale = np.float32(2.0 ** (math.frexp(float(largest))[1] - 1))
        if np.float16(largest / scale) >= 2:  # it is rounded up to the next power of two
            scale *= np.float32(2)
        codes[...] = values / scale
    return scale


def _rounded_up(scale: np.float32) -> np.float32:
    bits = np.float32(scale).view(np.uint32)
    return np.uint32((bits + _LOW_BITS) & ~_LOW_BITS).view(np.float32)


def decode(scales: Scales, codes: Codes, out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Write the values of whole blocks (the last may be shorter) into ``out`` and return it."""
    np.copyto(out, codes, casting="safe")
    full = codes.size // BLOCK * BLOCK
    whole = out[:full].reshape(-1, BLOCK)
    np.multiply(whole, scales[: whole.shape[0], None], out=whole)
    if full < codes.size:
        np.multiply(out[full:], scales[-1], out=out[full:])
    return out


def require_canonical(scales: Scales, codes: Codes) -> None:
    """Return if `encode` could have made these blocks.

    Raises:
        Refusal: ``update-not-finite`` or ``update-malformed``.
    """
    if not (np.isfinite(scales).all() and np.isfinite(codes).all()):
        raise Refusal("update-not-finite", "an encoded update holds NaN or infinity")
    peaks = _peaks(codes)
    zero = scales == 0
    if codes.dtype == np.int8:
        is_sound = (scales.view(np.uint32) & _LOW_BITS) == 0
        is_full = peaks == _CODES
        smallest = _SMALLEST / np.float32(_CODES)
    else:
        is_sound = np.frexp(scales)[0] == 0.5
        is_full = (peaks >= 1) & (peaks < 2)
        smallest = _SMALLEST
    in_range = (scales >= smallest) & (scales <= _LARGEST_SCALE)
    if (
        not np.where(zero, peaks == 0, is_sound & is_full & in_range).all()
        or np.signbit(scales).any()
    ):
        raise Refusal("update-malformed", "an encoded update has a scale that no encoder chooses")


def _peaks(codes: Codes) -> NDArray[np.float32]:
    """Return each block's largest absolute code."""
    full = codes.size // BLOCK * BLOCK
    whole = codes[:full].reshape(-1, BLOCK)
    parts = [whole, codes[full:][None]] if full < codes.size else [whole]
    highs = np.concatenate([part.max(axis=1, initial=0) for part in parts]).astype(np.float32)
    lows = np.concatenate([part.min(axis=1, initial=0) for part in parts]).astype(np.float32)
    return np.maximum(highs, -lows)


def worst_error(encoding: Encoding) -> float:
    """Return how far a decoded value is off at most, as a share of its block's largest value."""
    return {"float32": 0.0, "float16": 2.0**-11, "int8": 0.5 / _CODES}[encoding] * (
        1 + (2.0**-15 if encoding == "int8" else 0)
    )


def norm_growth(encoding: Encoding) -> float:
    """Return the largest ratio of the L2 norms of a decoded and its original vector.

    int8: a block has one code 127; the ratio of the sums of squares is largest when every other
    value lies just above the middle below one and the same code k and is rounded up to it.
    float16: a value just above the middle of 1 and the next number is rounded up.
    """
    if encoding == "float32":
        return 1.0
    if encoding == "float16":
        return 1 + 2.0**-11
    top, others = _CODES**2, BLOCK - 1
    ratios = ((top + others * k * k) / (top + others * (k - 0.5) ** 2) for k in range(1, _CODES))
    return math.sqrt(max(ratios)) * (1 + 2.0**-15)  # the scale's rounding, and the division's
