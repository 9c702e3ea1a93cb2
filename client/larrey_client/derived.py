"""Numbers that a standard app tells about its rows: the small-cell rule, before they are signed.

The trainer answers a call other than train with a file of metrics. What leaves is another file,
written here, in the agent, whose every value passed `larrey_privacy.small_cells`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from larrey_client.frames import memory_file, seal
from larrey_privacy.small_cells import protect_scalar
from larrey_protocol.errors import Refusal
from larrey_protocol.tensors import TensorLayout, pack

__all__ = ["snapshot_commitment", "under_small_cell_rule"]


@contextmanager
def under_small_cell_rule(metrics: int, layout: TensorLayout, threshold: int) -> Iterator[int]:
    """Yield a sealed file of the metrics as they may leave; it is closed with the context.

    Args:
        metrics: descriptor of a file that `larrey_protocol.envelope.check_update` let through.
        layout: of both files.
        threshold: smallest count that may be told.

    Raises:
        Refusal: ``small-cell`` if one of them is a count of too few patients.
    """
    head = len(layout.header)
    values = np.frombuffer(os.pread(metrics, layout.nbytes - head, head), "<f4")
    told = [protect_scalar(float(value), threshold) for value in values]
    if None in told:
        raise Refusal(
            "small-cell",
            f"a metric is a count under {threshold}",
            "Let the app tell shares, or larger groups.",
        )
    file = seal(memory_file("metrics", [pack(layout, np.array(told, np.float32))]))
    try:
        yield file
    finally:
        os.close(file)


def snapshot_commitment(secret: bytes, study: str, content: str) -> str:
    """Return what binds this site to the rows it used in a study and tells nothing about them.

    The key is made from the site's secret and the study, so that two studies on the same rows
    cannot be linked and nobody can try out contents.

    Args:
        secret: of the site; it never leaves.
        study: digest.
        content: digest of the rows; it never leaves. Empty gives an empty commitment.
    """
    if not content:
        return ""
    key = hmac.digest(secret, b"larrey.v1.snapshot\n" + study.encode(), "sha256")
    return "hmac-sha256:" + hmac.new(key, content.encode(), hashlib.sha256).hexdigest()
