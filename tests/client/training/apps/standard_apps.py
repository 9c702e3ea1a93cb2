"""Standard Flower ClientApps as a site's policy might list them, good and bad. No torch."""

import os
import signal
import socket
import sys

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from larrey_protocol.errors import LarreyError


def _reply(message: Message, arrays: ArrayRecord) -> Message:
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 12})})
    return Message(content, reply_to=message)


def _shifted(message: Message, by: float) -> ArrayRecord:
    record = message.content["arrays"]
    shifted = ArrayRecord([values + by for values in record.to_numpy_ndarrays()])
    return ArrayRecord(dict(zip(record.keys(), shifted.values(), strict=True)))


plus_one = ClientApp()
judges = ClientApp()
dies = ClientApp()
hangs = ClientApp()
raises = ClientApp()
renames = ClientApp()
talks = ClientApp()
pairs = ClientApp()
tells_limits = ClientApp()
device_lost = ClientApp()
bus_error = ClientApp()
loader_died = ClientApp()


@plus_one.train()
def _(message: Message, context: Context) -> Message:
    return _reply(message, _shifted(message, 1.0))


@judges.evaluate()
def _(message: Message, context: Context) -> Message:
    told = MetricRecord({"secret": 1.0, "count": 12, "loss": 0.25, "curve": [1.0, 2.0]})
    return Message(RecordDict({"metrics": told}), reply_to=message)


@judges.query()
def _(message: Message, context: Context) -> Message:
    first = float(message.content["arrays"].to_numpy_ndarrays()[0].flat[0])
    told = MetricRecord({"count": first * 2, "loss": first})
    return Message(RecordDict({"metrics": told}), reply_to=message)


@dies.train()
def _(message: Message, context: Context) -> Message:
    os._exit(7)


@hangs.train()
def _(message: Message, context: Context) -> Message:
    while True:
        os.sched_yield()


@raises.train()
def _(message: Message, context: Context) -> Message:
    raise ValueError("a patient's value")


@talks.train()
def _(message: Message, context: Context) -> Message:
    raise LarreyError("patient-4711-has-it", "a word of its own")


@pairs.train()
def _(message: Message, context: Context) -> Message:
    told = 0
    try:
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError as error:
        told = error.errno or 0
    return _reply(message, _shifted(message, float(told)))


@renames.train()
def _(message: Message, context: Context) -> Message:
    arrays = message.content["arrays"]
    return _reply(message, ArrayRecord({f"x{name}": a for name, a in arrays.items()}))


def _socket_error() -> float:
    try:
        socket.create_connection(("127.0.0.1", 1), timeout=1).close()
    except ConnectionRefusedError:
        return 0.0  # the network was there
    except OSError as error:
        return float(error.errno or -1)
    return 0.0


@tells_limits.train()
def _(message: Message, context: Context) -> Message:
    """Answer with the model plus: errno of a connection, 100 if torch is there, 1000 per secret."""
    secrets = sum(name in os.environ for name in ("HOME", "LARREY_SECRET"))
    told = _socket_error() + 100.0 * ("torch" in sys.modules) + 1000.0 * secrets
    return _reply(message, _shifted(message, told))


@device_lost.train()
def _(message: Message, context: Context) -> Message:
    raise RuntimeError("CUDA error: unspecified launch failure")


@bus_error.train()
def _(message: Message, context: Context) -> Message:
    signal.raise_signal(signal.SIGBUS)
    raise AssertionError("unreachable")


@loader_died.train()
def _(message: Message, context: Context) -> Message:
    raise RuntimeError("DataLoader worker (pid(s) 42) is killed by signal: Bus error. ")
