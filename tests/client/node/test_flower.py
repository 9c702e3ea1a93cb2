"""Flower's private names that the agent uses, and what it does with foreign messages."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import flwr
import pytest

from larrey_client.flower import FLOWER_VERSION, PRIVATE_NAMES, make_give, open_take
from larrey_client.task import Task
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import TransportError
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.client.node.peer import unwrap, wrap

DIGEST = digest_bytes(b"x")
TASK = Task(DIGEST, 1, "train", 1, DIGEST, 100, 5.0, "1:" + DIGEST)


def test_flower_has_the_version_whose_private_names_are_used() -> None:
    assert flwr.__version__ == FLOWER_VERSION


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_a_private_name_of_flower_still_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_every_private_import_is_listed() -> None:
    import larrey_client.flower as module

    lines = inspect.getsource(module)
    for name in PRIVATE_NAMES:
        assert name.rpartition(".")[0] in lines
    private = [line for line in lines.splitlines() if line.startswith("from flwr.")]
    listed = {name.rpartition(".")[0] for name in PRIVATE_NAMES}
    assert {line.split()[1] for line in private} - {"flwr.app"} == listed


def test_only_one_module_of_the_agent_imports_flower() -> None:
    program = (
        "import sys, larrey_client.agent, larrey_client.run;"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('larrey_')])"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    loaded = [Path(name) for name in result.stdout.split()]
    users = {path.name for path in loaded if "from flwr" in path.read_text(encoding="utf-8")}
    assert users == {"flower.py"}


def test_a_request_survives_the_journey() -> None:
    incoming = open_take(wrap(asdict(TASK)))
    assert incoming is not None
    assert incoming.task == TASK


def test_no_work_is_no_request() -> None:
    assert open_take(wire.TakeReply()) is None


def test_a_reply_names_the_request_and_the_update() -> None:
    incoming = open_take(wrap(asdict(TASK)))
    assert incoming is not None
    message, fields = unwrap(make_give(incoming, update=DIGEST, code="", receipt=b"r"))
    assert message.metadata.reply_to_message_id == incoming.message.metadata.message_id
    assert fields == {
        "study": DIGEST, "round": 1, "phase": "train", "attempt": 1, "model": DIGEST,
        "update": DIGEST, "code": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"study": "heart"},
        {"study": 5},
        {"round": -1},
        {"round": 1.5},
        {"round": True},
        {"model": "sha256:" + "g" * 64},
        {"model_bytes": 2**60},
        {"deadline_s": float("nan")},
        {"deadline_s": [1.0]},
        {"phase": "x" * 1000},
    ],
)
def test_a_request_with_a_foreign_value_is_no_task(change: dict[str, Any]) -> None:
    incoming = open_take(wrap(asdict(TASK) | change))
    assert incoming is not None
    assert incoming.task is None


def test_an_object_that_is_not_what_its_id_says_is_no_task() -> None:
    reply = wrap(asdict(TASK))
    reply.objects[0].content += b"x"
    incoming = open_take(reply)
    assert incoming is not None
    assert incoming.task is None


@pytest.mark.parametrize("count", [0, 1])
def test_missing_objects_are_no_task(count: int) -> None:
    reply = wrap(asdict(TASK))
    del reply.objects[count:]
    incoming = open_take(reply)
    assert incoming is not None
    assert incoming.task is None


def test_noise_instead_of_a_message_is_a_transport_error() -> None:
    with pytest.raises(TransportError, match="message-malformed"):
        open_take(wire.TakeReply(messages=b"\xff\xfe not protobuf"))
