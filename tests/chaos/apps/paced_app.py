"""The seeded app at a walking pace, so that faults meet rounds in the middle."""

from __future__ import annotations

import time

import seeded_app
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()
_TRAINING_S = 0.15


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer as the seeded app does, a little later."""
    time.sleep(_TRAINING_S)
    answer: Message = seeded_app.train(message, context)
    return answer
