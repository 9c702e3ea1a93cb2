"""Gaussian noise from a cryptographic generator. Does not import torch.

ChaCha20 keystream, 53-bit uniforms, Box-Muller in float64. The key of each draw is derived from
the process's secret, 32 fresh bytes of the operating system and the ledger's sequence number, so
that neither a restored virtual machine nor a fork repeats noise. No seed goes in, no state comes
out: a stream cannot be copied, pickled or restored. Not exact Gaussian sampling: tails end near
8.6 sigma (charged to delta by the accountant) and sums are rounded to a public grid.

Source: G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", 1958;
RFC 8439 (ChaCha20); RFC 5869 (HKDF); I. Mironov, "On significance of the least significant bits
for differential privacy", 2012, for the grid.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

__all__ = ["NoiseStream", "grid_of", "round_to_grid"]

# Pairs drawn at a time: the working set stays in the processor's cache.
_BLOCK_PAIRS = 1 << 14
_UNIT = 2.0**-53


class NoiseStream:
    """Fresh standard Gaussian noise; ``entropy`` is the operating system's outside of tests."""

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._sequence = 0
        self._draws = 0
        self._renew()

    def bind(self, sequence: int) -> None:
        """Bind the next draws to the ledger's sequence number of the round's reservation."""
        self._sequence = sequence

    def normal(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` independent standard Gaussian numbers, under a key of their own."""
        stream = Cipher(ChaCha20(self._key(), bytes(16)), mode=None).encryptor()
        out = np.empty(count + count % 2, dtype=np.float64)
        for start in range(0, len(out), 2 * _BLOCK_PAIRS):
            block = out[start : start + 2 * _BLOCK_PAIRS]
            _box_muller(stream.update(bytes(8 * len(block))), block)
        return out[:count]

    def __reduce__(self) -> NoReturn:
        """Refuse: a stream that exists twice repeats its noise."""
        raise TypeError("a noise stream is never copied, pickled or saved")

    def _key(self) -> bytes:
        if os.getpid() != self._process:
            self._renew()
        self._draws += 1
        info = f"larrey noise {self._sequence} {self._draws}".encode()
        return HKDF(SHA256(), 32, salt=self._entropy(32), info=info).derive(self._secret)

    def _renew(self) -> None:
        self._process = os.getpid()
        self._secret = self._entropy(32)


def grid_of(clip: float, largest: float) -> float:
    """Return the public grid for sums up to ``largest``: the clipping norm over a power of two.

    2^-24 of the clipping norm, or coarser so that it is at least 2^10 ulp of ``largest``. Both
    arguments are public: the bound of the sum, never the sum.
    """
    bits = math.ceil(math.log2(max(largest / clip, 1.0)))
    return math.ldexp(clip, -min(24, 42 - bits))


def round_to_grid(values: NDArray[np.float64], grid: float) -> NDArray[np.float64]:
    """Return the values at the nearest multiples of the grid."""
    return np.rint(values / grid) * grid


def _box_muller(keystream: bytes, out: NDArray[np.float64]) -> None:
    words = np.frombuffer(keystream, dtype="<u8") >> np.uint64(11)
    half = len(out) // 2
    radius = np.sqrt(-2.0 * np.log1p(words[:half] * -_UNIT))
    angle = words[half:] * (2.0 * np.pi * _UNIT)
    np.multiply(radius, np.cos(angle), out=out[:half])
    np.multiply(radius, np.sin(angle), out=out[half:])
