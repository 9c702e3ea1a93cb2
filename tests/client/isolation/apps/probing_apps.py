"""Standard Flower ClientApps that try what a trainer must not be able to do. No torch."""

import json
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

works = ClientApp()
tries = ClientApp()
eats = ClientApp()
faults = ClientApp()


def _reply(message: Message, by: float) -> Message:
    record = message.content["arrays"]
    moved = ArrayRecord([values + by for values in record.to_numpy_ndarrays()])
    arrays = ArrayRecord(dict(zip(record.keys(), moved.values(), strict=True)))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({})}), reply_to=message)


def _write(path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("x")


def _scratch() -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)


_TRIES: dict[str, Callable[..., object]] = {
    "read": lambda path: Path(path).open("rb").close(),
    "list": os.listdir,
    "write": _write,
    "scratch": _scratch,
    "remove": os.unlink,
    "link": lambda path: os.link(path, f"{path}.link"),
    "start": lambda path: subprocess.run([path], check=False),
    "socket": lambda: socket.socket(socket.AF_INET).close(),
    "unix": _connect,
    "signal": lambda pid: os.kill(int(pid), 0),
}


@works.train()
def _(message: Message, context: Context) -> Message:
    return _reply(message, 1.0)


@tries.train()
def _(message: Message, context: Context) -> Message:
    """Try what line number ``round`` of the table of tries says; answer with its errno."""
    lines = Path(__file__).with_name("tries.json").read_text(encoding="utf-8")
    name, *arguments = json.loads(lines)[int(message.content["config"]["round"]) - 1]
    told = 0
    try:
        _TRIES[name](*arguments)
    except OSError as error:
        told = error.errno or -1
    return _reply(message, float(told))


@eats.train()
def _(message: Message, context: Context) -> Message:
    eaten = []
    while True:
        eaten.append(bytearray(1 << 28))


@faults.train()
def _(message: Message, context: Context) -> Message:
    os.kill(os.getpid(), signal.SIGSEGV)
    return _reply(message, 0.0)
