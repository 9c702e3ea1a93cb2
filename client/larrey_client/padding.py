"""When an answer may be handed over, so that its time says little about how much was computed.

Steps, patients and rows set how long a training takes. An answer that touched the data waits for
the next multiple of the policy's bucket, counted from the request's arrival. Pure.
"""

from __future__ import annotations

import math

__all__ = ["release_at"]

_LATEST_SHARE = 0.1  # of the time allowed, kept for sending


def release_at(now: float, *, arrived: float, deadline: float, bucket: float) -> float:
    """Return when the answer is handed over, on the clock of the arguments; never before ``now``.

    Args:
        now: when the answer is ready.
        arrived: when the request came.
        deadline: when nobody waits any more; the wait ends a bucket, or a tenth of the time
            allowed if that is less, before it. What is later than that waits for its multiple.
        bucket: seconds; 0 does not wait.
    """
    if bucket <= 0:
        return now
    steps = max(1, math.ceil((now - arrived) / bucket))
    if now >= deadline:
        return arrived + steps * bucket
    latest = deadline - min(bucket, _LATEST_SHARE * (deadline - arrived))
    return max(now, min(arrived + steps * bucket, latest))
