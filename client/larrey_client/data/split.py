"""Which units train, validate and test: decided by a keyed hash of the identifier alone.

A unit is wholly in one part, in every run and whatever the order of the rows. Without the site's
secret nobody can tell who is in which part, nor choose identifiers that land in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.contract import Split

__all__ = ["PARTS", "part_of", "split_salt"]

PARTS = ("train", "valid", "test")


def split_salt(split: Split, secret: bytes) -> bytes:
    """Return the key of a contract's split at this site."""
    return blake2b(split.salt.encode(), key=secret[:64], person=b"larrey-split").digest()


def part_of(ids: Sequence[str], salt: bytes, split: Split | None) -> NDArray[np.int8]:
    """Return each unit's part as an index into ``PARTS``; without a split, everybody trains.

    Each unit falls into a part with the part's share as probability, so that sizes vary around it.

    Args:
        ids: identifiers, each its own unit.
        salt: of `split_salt`, at most 64 bytes.
        split: the contract's shares; a part with the share 0 stays empty.
    """
    if split is None:
        return np.zeros(len(ids), np.int8)
    shares = np.array([split.train, split.valid, split.test])
    used = np.flatnonzero(shares)
    edges = np.cumsum(shares[used])[:-1]
    words = b"".join(
        blake2b(text.strip().encode(), digest_size=8, key=salt, person=b"larrey-part").digest()
        for text in ids
    )
    # 53 bits: exact in float64, and always below 1
    points = (np.frombuffer(words, ">u8") >> np.uint64(11)) / 2.0**53
    parts: NDArray[np.int8] = used[np.searchsorted(edges, points, side="right")].astype(np.int8)
    return parts
