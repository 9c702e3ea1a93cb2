"""A standard Flower ClientApp that trains alike each time: its step follows from site and round.

The new weights are float32 sums, so that an update depends on the bits of the model it started
from: a round applied twice, or on another model, shows in every later one.
"""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
_SIZE = 0.01  # of a step, a coordinate


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the model plus this site's step of this round."""
    site, number = int(context.node_config["partition-id"]), int(message.metadata.group_id)
    draw = np.random.Generator(np.random.PCG64([site, number]))
    record = message.content.array_records["arrays"]
    moved = [
        values + np.float32(_SIZE) * draw.standard_normal(values.shape, dtype=np.float32)
        for values in record.to_numpy_ndarrays()
    ]
    arrays = ArrayRecord(dict(zip(record.keys(), ArrayRecord(moved).values(), strict=True)))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({})}), reply_to=message)
