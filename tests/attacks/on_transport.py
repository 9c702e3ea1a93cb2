"""Attacks by messages: unreadable, overfull, endless, from somebody else."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import logging
import pickle
import socket
from dataclasses import asdict, replace
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    no_object_id_recompute,
)

from larrey_client.local import SOCKET
from larrey_client.witnessed import witnessed
from larrey_protocol.certificates import issue_server, make_authority
from larrey_protocol.decisions import Anchor
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import sign
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site
from tests.client.node.peer import wrap

NOW = dt.datetime.now(dt.UTC)


def wrapped(content: RecordDict, group: str = "1") -> wire.TakeReply:
    """Return any content as a request travels."""
    metadata = Metadata(5, "", 1, 77, "", group, NOW.timestamp(), 3600.0, "train")
    message: Message = make_message(metadata, content)
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        objects, tree = get_all_nested_objects(message), get_object_tree(message)
        pulled = PullMessagesResponse(
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[tree],
        )
        parts = [wire.FlowerObject(id=k, content=o.deflate()) for k, o in objects.items()]
    return wire.TakeReply(messages=pulled.SerializeToString(), objects=parts)


def with_object(site: Site, content: bytes, *, is_named: bool = True) -> wire.TakeReply:
    """Return an honest request with one object more, which its tree names."""
    reply = wrap(asdict(site.peer.first_task(site.daily)))
    pulled = PullMessagesResponse.FromString(reply.messages)
    key = get_object_id(content)
    if is_named:
        pulled.message_object_trees[0].children.append(ObjectTree(object_id=key))
    reply.messages = pulled.SerializeToString()
    reply.objects.append(wire.FlowerObject(id=key, content=content))
    return reply


def with_record(site: Site, **changes: Any) -> wire.TakeReply:
    return wrap(asdict(site.peer.first_task(site.daily)) | changes)


@attack("field-unknown")
def field_unknown(site: Site) -> str:
    return site.push(with_record(site, run_this="import os"))


@attack("field-missing")
def field_missing(site: Site) -> str:
    return site.push(wrap({"study": site.daily.digest}))


@attack("field-of-another-type")
def field_of_another_type(site: Site) -> str:
    changes: tuple[dict[str, Any], ...] = (
        {"round": [1]}, {"round": -1}, {"round": 2**60}, {"round": True}, {"deadline_s": "9"},
        {"deadline_s": float("nan")}, {"deadline_s": float("inf")}, {"phase": "x" * 201},
        {"study": b"sha256"}, {"model_bytes": 1.5},
    )  # fmt: skip
    return ",".join({site.push(with_record(site, **change)) for change in changes})


@attack("deadline-of-ages")
def deadline_of_ages(site: Site) -> str:
    """A deadline that no clock can hold would break timers, or hold the node's one worker."""
    ages = (1e300, 1e18, 1e12, 1e9)
    return ",".join({site.push(with_record(site, deadline_s=age)) for age in ages})


@attack("path-in-a-digest")
def path_in_a_digest(site: Site) -> str:
    paths = ("../../site.key", "/etc/passwd", "sha256:../" + "a" * 61, "sha256:" + "a" * 64 + "\n")
    fields = ("study", "model")
    return ",".join({site.push(with_record(site, **{f: p})) for f in fields for p in paths})


@attack("path-in-a-phase")
def path_in_a_phase(site: Site) -> str:
    study = site.running()
    site.watch()
    return site.ask(study, phase="../../train")


@attack("pickle-in-a-record")
def pickle_in_a_record(site: Site) -> str:
    bomb = pickle.dumps(_Bomb())
    array = Array("float32", (1,), "cloudpickle.numpy.ndarray", bomb)
    code = site.push(wrapped(RecordDict({"larrey": ArrayRecord({"w": array})})))
    assert not _Bomb.went_off
    return code


@attack("pickle-as-an-object")
def pickle_as_an_object(site: Site) -> str:
    code = site.push(with_object(site, pickle.dumps(_Bomb())))
    assert not _Bomb.went_off
    return code


@attack("zip-bomb")
def zip_bomb(site: Site) -> str:
    packed = io.BytesIO()
    with gzip.open(packed, "wb", compresslevel=1) as file:
        file.write(b"\0" * (8 << 20))
    return site.push(with_object(site, packed.getvalue()))


@attack("object-too-large")
def object_too_large(site: Site) -> str:
    return site.push(with_object(site, b"ConfigRecord " + b"\0" * (1 << 17)))


@attack("objects-too-many")
def objects_too_many(site: Site) -> str:
    reply = with_object(site, b"ConfigRecord 0")
    pulled = PullMessagesResponse.FromString(reply.messages)
    for number in range(20_000):
        content = b"ConfigRecord %d" % number
        key = get_object_id(content)
        pulled.message_object_trees[0].children.append(ObjectTree(object_id=key))
        reply.objects.append(wire.FlowerObject(id=key, content=content))
    reply.messages = pulled.SerializeToString()
    return site.push(reply)


@attack("tree-deep")
def tree_deep(site: Site) -> str:
    reply = wrap(asdict(site.peer.first_task(site.daily)))
    pulled = PullMessagesResponse.FromString(reply.messages)
    node = pulled.message_object_trees[0]
    for number in range(90):  # protobuf itself ends at a hundred
        child = node.children.add()
        child.object_id = f"{number:064x}"
        node = child
    reply.messages = pulled.SerializeToString()
    return site.push(reply)


@attack("object-altered")
def object_altered(site: Site) -> str:
    reply = with_record(site)
    reply.objects[-1].content += b"\0"
    return site.push(reply)


@attack("object-unnamed")
def object_unnamed(site: Site) -> str:
    return site.push(with_object(site, b"ConfigRecord 0", is_named=False))


@attack("two-records")
def two_records(site: Site) -> str:
    task = ConfigRecord(asdict(site.peer.first_task(site.daily)))  # type: ignore[arg-type]
    more = RecordDict({"larrey": task, "extra": ConfigRecord({"n": 1})})
    return site.push(wrapped(more))


@attack("echo-too-long")
def echo_too_long(site: Site) -> str:
    """What a reply repeats of a request is short: it is no way to fill the node's log."""
    task = ConfigRecord(asdict(site.peer.first_task(site.study())))  # type: ignore[arg-type]
    site.watch()
    site.peer.push(wrapped(RecordDict({"larrey": task}), "x" * 60_000))
    return site.trouble("egress-not-listed")


@attack("answer-to-fill-the-log")
def answer_to_fill_the_log(site: Site) -> str:
    """Ten megabytes, with a terminal's commands among them, as the reason of not taking a reply."""
    study = site.running()
    task = site.peer.first_task(study)
    assert site.request(task) == ""
    lines = _Lines()
    logging.getLogger("larrey_client").addHandler(lines)
    site.watch()
    site.peer.said = "\x1b[2J" + "x" * (10 << 20)
    try:
        code = site.request(task)
        site.wait(lambda: any("not taken" in line for line in lines.kept))
    finally:
        site.peer.said = ""
        logging.getLogger("larrey_client").removeHandler(lines)
    assert not [line for line in lines.kept if len(line) > 300 or "\x1b" in line]
    return code


@attack("message-unreadable")
def message_unreadable(site: Site) -> str:
    site.watch()
    site.peer.push(wire.TakeReply(messages=b"\xff" * 100))
    return site.trouble("message-malformed")


@attack("local-request-deep")
def local_request_deep(site: Site) -> str:
    """The node's own door is a file, for whoever has its account."""
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(site.settings.site.state / SOCKET))
        door.sendall(b"[" * 60_000 + b"\n")
        door.settimeout(5)
        return str(json.loads(door.recv(1 << 16))["error"]["code"])


@attack("witness-forged")
def witness_forged(site: Site) -> str:
    """Heads in other hospitals' names, by the hundred: none is kept."""
    key = SigningKey.generate()
    forged = [
        sign(Anchor(site=name, ledger_head="9:", audit_head="9:", at=1.0), key).to_bytes()
        for name in ("alpha", "beta", *(f"sybil-{n}" for n in range(300)))
    ]
    reply = wrap(asdict(site.peer.first_task(site.study())))
    reply.witness.extend([*forged, b"[" * 100_000])
    code = site.push(reply)
    assert not witnessed(site.node.node.store, site.roster().sites)
    return code


@attack("model-withheld")
def model_withheld(site: Site) -> str:
    study = site.running()
    site.watch()
    task = replace(site.peer.first_task(study), model="sha256:" + "f" * 64)
    return site.request(task)


@attack("model-never-ends")
def model_never_ends(site: Site) -> str:
    study = site.running()
    site.watch()
    site.peer.hangs.set()
    try:
        site.peer.send(replace(site.peer.first_task(study), deadline_s=0.4))
        return site.trouble("coordinator-timeout")
    finally:
        site.peer.hangs.clear()


@attack("transfer-cut-for-ever")
def transfer_cut_for_ever(site: Site) -> str:
    study = site.running()
    site.watch()
    site.peer.cuts = 10_000
    try:
        site.peer.send(replace(site.peer.first_task(study), deadline_s=0.3))
        return site.trouble("coordinator-unreachable")
    finally:
        site.peer.cuts = 0


@attack("offer-beyond-the-end")
def offer_beyond_the_end(site: Site) -> str:
    """Having more of an update than it has bytes."""
    study = site.running()
    task = site.peer.first_task(study)
    assert site.request(task) == ""
    site.watch()
    site.peer.has = 2**63
    try:
        return site.request(task)
    finally:
        site.peer.has = 0


@attack("coordinator-of-another-authority", alone=True)
def coordinator_of_another_authority(site: Site) -> str:
    foreign = make_authority("somebody else", now=NOW)
    site.halt()
    port = site.peer.port
    site.peer.stop()
    site.peer.start(issue_server(foreign, ["localhost"], now=NOW), foreign.certificate)
    assert site.peer.port == port
    site.start()
    site.watch()
    site.wait(lambda: bool(site.node.trouble))
    code = site.node.trouble
    site.peer.stop()
    site.peer.start(site.pki.server, site.pki.authority.certificate)
    site.start()
    return code


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record.getMessage())


class _Bomb:
    """What would run if anybody unpickled it."""

    went_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (_Bomb, "went_off", True))
