"""From the metrics that a Flower app answers with to the numbers that a study declares. No torch.

What the study does not name is dropped here, inside the trainer, and never leaves.
"""

from __future__ import annotations

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from larrey_protocol.errors import LarreyError
from larrey_protocol.tensors import TensorLayout

__all__ = ["metrics_of"]


def metrics_of(content: RecordDict, layout: TensorLayout) -> NDArray[np.float32]:
    """Return the values of the metrics that ``layout`` names, in its order.

    What float32 cannot hold becomes infinite, which the border refuses like any other infinity.

    Raises:
        LarreyError: ``reply-wrong-metrics`` unless there is one metric record in which each of them
            is a number.
    """
    records = list(content.metric_records.values())
    if len(records) != 1:
        raise _wrong(f"has {len(records)} metric records, expected one")
    values = [records[0].get(name) for name, _ in layout.entries]
    if any(type(value) not in (int, float) for value in values):
        raise _wrong("lacks a declared metric, or it is not one number")
    try:
        with np.errstate(over="ignore"):
            return np.array(values, np.float64).astype("<f4")
    except OverflowError as error:
        raise _wrong("has an integer that no float can hold") from error


def _wrong(what: str) -> LarreyError:
    return LarreyError(
        "reply-wrong-metrics", f"the app's answer {what}", "Correct the app; nothing was sent."
    )
