"""A patient under another name: keyed hashes of identifiers, made and compared only at the site.

BLAKE2b, 16 bytes, keyed with the site's secret; whoever lacks the secret can neither compute nor
try one. White space around an identifier does not count, everything else does (``7`` is not
``007``). RFC 7693.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

__all__ = ["HASH_BYTES", "pack_hashes", "patient_hash", "unpack_hashes"]

HASH_BYTES = 16
_MAX_KEY = 64  # of BLAKE2b


def patient_hash(identifier: str, secret: bytes) -> bytes:
    """Return the 16 bytes that stand for a patient at this site."""
    text = identifier.strip().encode()
    return blake2b(
        text, digest_size=HASH_BYTES, key=secret[:_MAX_KEY], person=b"larrey-patient"
    ).digest()


def pack_hashes(hashes: Iterable[bytes]) -> bytes:
    """Return hashes sorted, each once, one after another."""
    return b"".join(sorted(set(hashes)))


def unpack_hashes(data: bytes) -> frozenset[bytes]:
    """Return the hashes in what `pack_hashes` made.

    Raises:
        ValueError: the length is no multiple of a hash's.
    """
    if len(data) % HASH_BYTES:
        raise ValueError(f"{len(data)} bytes are no whole number of hashes")
    return frozenset(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))
