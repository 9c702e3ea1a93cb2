"""A standard Flower ClientApp that answers with the model plus one, when the test lets it.

While a file ``<data>.hold`` lies beside the site's table, the training goes on. No two sites and
rounds answer alike, but the mean of all four sites adds exactly one to every parameter, once for
each round that is applied.
"""

from __future__ import annotations

import threading
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Wait until nobody holds this site; then answer."""
    hold = Path(f"{context.node_config['data']}.hold")
    while hold.exists():
        threading.Event().wait(0.01)
    site, number = int(context.node_config["partition-id"]), int(message.metadata.group_id)
    step = 1 + number * (site - 1.5) / 8  # exact in binary
    record = message.content.array_records["arrays"]
    moved = ArrayRecord([values + step for values in record.to_numpy_ndarrays()])
    arrays = ArrayRecord(dict(zip(record.keys(), moved.values(), strict=True)))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({})}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Tell the mean parameter of the model, and something nobody asked for."""
    record = message.content.array_records["arrays"]
    values = [float(array.mean()) for array in record.to_numpy_ndarrays()]
    share = sum(values) / len(values) / 8  # exact in binary; under 1, so no count
    metrics = MetricRecord({"level": share, "patients": 23})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
