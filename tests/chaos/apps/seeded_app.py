"""A standard Flower ClientApp that trains alike each time: its step follows from site and round.

The new weights are float32 sums, so that an update depends on the bits of the model it started
from: a round applied twice, or on another model, shows in every later one.
"""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

app = ClientApp()
_SIZE = np.float32(0.01)  # of a step, a coordinate


def moved(tensors: list[NDArray[np.float32]], site: int, number: int) -> list[NDArray[np.float32]]:
    """Return new weights: the old ones and this site's step of this round."""
    draw = np.random.Generator(np.random.PCG64([site, number]))
    return [old + _SIZE * draw.standard_normal(old.shape, dtype=np.float32) for old in tensors]


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the model plus this site's step of this round."""
    site, number = int(context.node_config["partition-id"]), int(message.metadata.group_id)
    record = message.content.array_records["arrays"]
    weights = ArrayRecord(moved(record.to_numpy_ndarrays(), site, number))
    arrays = ArrayRecord(dict(zip(record.keys(), weights.values(), strict=True)))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({})}), reply_to=message)
