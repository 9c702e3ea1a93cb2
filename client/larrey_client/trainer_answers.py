"""What the agent believes of its trainer's answers: known codes, expected fields, sealed files.

Anything else is ``trainer-failed``; its words are put on one line. Imports neither torch nor numpy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

from larrey_client.data.identity import HASH_BYTES
from larrey_client.explain.plain import plain
from larrey_client.frames import is_sealed
from larrey_protocol.errors import DataError, LarreyError

__all__ = [
    "close_files",
    "failure_of",
    "field_of",
    "hashes_of",
    "only_file",
    "scores_of",
    "sealed_files",
]

# All that a trainer may say went wrong, since a code may leave the site: another word from it would
# be a message. What is wrong with the data (DataError) has one code outside, whatever it says.
_CODES = frozenset(
    {
        "app-failed",
        "app-not-found",
        "app-reads-all-rows",
        "data-path-missing",
        "device-lost",
        "gradient-missing",
        "gradients-pending",
        "load-malformed",
        "loss-couples-patients",
        "message-malformed",
        "model-buffers",
        "model-couples-patients",
        "model-malformed",
        "noise-missing",
        "plan-impossible",
        "reply-wrong-metrics",
        "reply-wrong-tensors",
        "shared-memory-full",
        "site-not-invited",
        "state-malformed",
        "trainer-failed",
    }
)
_MOST_PATIENTS = 1 << 24  # 256 MiB of hashes
_KindT = TypeVar("_KindT", int, str)


def failure_of(answer: dict[str, Any]) -> LarreyError:
    """Return the error that the trainer reports; an ill-formed report is a failure too."""
    kind = DataError if answer.get("kind") == "data" else LarreyError
    if kind is LarreyError and answer["code"] not in _CODES:
        return LarreyError("trainer-failed", "the trainer reported a code that it does not have")
    try:
        return kind(
            str(answer["code"]),
            plain(str(answer.get("message", ""))),
            plain(str(answer.get("next_step", ""))),
        )
    except ValueError:
        return LarreyError("trainer-failed", "the trainer reported an ill-formed code")


def only_file(answer: dict[str, Any], fds: list[int]) -> int:
    """Return the one sealed file of an answer; the caller closes it.

    Raises:
        LarreyError: ``trainer-failed``.
    """
    return sealed_files(fds, 1)[0]


def sealed_files(fds: list[int], count: int) -> list[int]:
    """Return the sealed files of an answer that must have so many; the caller closes them.

    Raises:
        LarreyError: ``trainer-failed``.
    """
    if len(fds) == count and all(is_sealed(fd) for fd in fds):
        return fds
    close_files(fds)
    found = f"the trainer sent {len(fds)} files, expected {count}, sealed"
    raise LarreyError("trainer-failed", found)


def hashes_of(answer: dict[str, Any], fds: list[int]) -> bytes:
    """Return the patients' hashes in the one file of an answer, and close it.

    Raises:
        LarreyError: ``trainer-failed`` where it is cut, or larger than any list of patients.
    """
    file = only_file(answer, fds)
    try:
        size = os.fstat(file).st_size
        if size % HASH_BYTES or size > _MOST_PATIENTS * HASH_BYTES:
            raise LarreyError("trainer-failed", f"no list of patients has {size} bytes")
        return os.pread(file, size, 0)
    finally:
        os.close(file)


def field_of(answer: dict[str, Any], name: str, kind: type[_KindT]) -> _KindT:
    """Return a field of an answer.

    Raises:
        LarreyError: ``trainer-failed`` where it is missing or of another kind.
    """
    value = answer.get(name)
    if not isinstance(value, kind):
        raise LarreyError("trainer-failed", f"the trainer's answer lacks '{name}'")
    return value


def scores_of(answer: dict[str, Any]) -> dict[str, float]:
    """Return the numbers in an answer by their names; only what is a number."""
    scores = answer.get("scores")
    if not isinstance(scores, dict):
        return {}
    return {plain(str(k)): float(v) for k, v in scores.items() if isinstance(v, int | float)}


def close_files(fds: Sequence[int]) -> None:
    """Close descriptors that came with an answer."""
    for fd in fds:
        os.close(fd)
