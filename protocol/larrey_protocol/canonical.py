"""One byte form for every value that is hashed or signed.

Canonical JSON: keys sorted, no white space, UTF-8, no NaN or infinity. Numbers follow Python's
shortest round-trip form, so that the same value always gives the same bytes on every machine.
Not a general encoder: it takes what pydantic's ``model_dump(mode="json")`` produces.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

__all__ = ["DIGEST", "LARGEST", "canonical_json", "digest_bytes", "digest_of", "short"]

DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
LARGEST = 2**53 - 1  # whole number that every reader of JSON and every database keeps exactly


def canonical_json(value: Any) -> bytes:  # Any: JSON values are recursive
    """Return the canonical bytes of a JSON value.

    Raises:
        ValueError: the value holds NaN or infinity.
        TypeError: the value is not JSON.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def digest_bytes(data: bytes | memoryview) -> str:
    """Return ``sha256:<64 hex digits>`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:  # Any: JSON values are recursive
    """Return the digest of a JSON value's canonical bytes."""
    return digest_bytes(canonical_json(value))


def short(digest: str) -> str:
    """Return the first twelve hex digits, enough for a person to compare aloud."""
    return digest.removeprefix("sha256:")[:12]
