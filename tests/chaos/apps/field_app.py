"""A standard Flower ClientApp whose machine fails as the test says.

Empty files beside the site's table are the orders, since a trainer may look but not read there:
``<data>.hold`` keeps it training, ``.slow`` makes it twenty times slower, ``.lost`` takes its
device away, ``.bus`` fills the shared memory under it. Otherwise it adds one to every parameter.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
_TRAINING_S = 0.1
_SLOWER = 20


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the model plus one, unless an order says otherwise."""
    data, pause = str(context.node_config["data"]), threading.Event()
    pause.wait(_TRAINING_S * (_SLOWER if Path(f"{data}.slow").exists() else 1))
    while Path(f"{data}.hold").exists():
        pause.wait(0.01)
    if Path(f"{data}.lost").exists():
        raise RuntimeError("CUDA error: unspecified launch failure")
    if Path(f"{data}.bus").exists():
        signal.raise_signal(signal.SIGBUS)
    record = message.content.array_records["arrays"]
    moved = ArrayRecord([values + 1 for values in record.to_numpy_ndarrays()])
    arrays = ArrayRecord(dict(zip(record.keys(), moved.values(), strict=True)))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({})}), reply_to=message)
