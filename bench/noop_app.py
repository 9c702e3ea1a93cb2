"""A standard Flower ClientApp that trains for free: it answers with random numbers made once.

numpy only, so that a bench measures the path and not a deep-learning stack.
"""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
_answers: dict[tuple[str, ...], ArrayRecord] = {}


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with the same random tensors each time; the site subtracts the model it got."""
    arrays = message.content.array_records["arrays"]
    names = tuple(arrays)
    if names not in _answers:
        random = np.random.default_rng()
        _answers[names] = ArrayRecord(
            {name: Array(random.random(arrays[name].shape, dtype=np.float32)) for name in names}
        )
    content = RecordDict({"arrays": _answers[names], "metrics": MetricRecord({})})
    return Message(content, reply_to=message)
