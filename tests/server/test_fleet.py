"""The compatible path: a plain Flower Fleet client, and Flower's own Grid and strategy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from larrey_server.flower.grid import StudyGrid
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, SitePeer, running, until


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = Folder.make(tmp_path_factory.mktemp("federation"))
    yield from running(folder, tmp_path_factory.mktemp("state"))


@pytest.fixture
def own_federation(tmp_path: Path) -> Iterator[Federation]:
    """Return a federation whose study leaves no tasks to other tests."""
    yield from running(Folder.make(tmp_path / "federation"), tmp_path / "state")


@pytest.fixture
def grid(federation: Federation) -> Iterator[StudyGrid]:
    engine = federation.hub.coordinator.engine
    run = engine.start_run("plain")
    yield StudyGrid(engine, run)
    engine.finish_run(run)


def activate(site: SitePeer, key: bytes) -> Node:
    request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
    return Node(node_id=site.fleet.ActivateNode(request, timeout=5).node_id)


def answer_one(site: SitePeer, node: Node) -> None:
    """Pull one message object by object, double its array, push the reply the same way."""
    pulled = site.fleet.PullMessages(PullMessagesRequest(node=node), timeout=30)
    envelope, tree = message_from_proto(pulled.messages_list[0]), pulled.message_object_trees[0]
    run_id = envelope.metadata.run_id
    contents = {
        part.object_id: site.fleet.PullObject(
            PullObjectRequest(node=node, run_id=run_id, object_id=part.object_id)
        ).object_content
        for part in iterate_object_tree(tree)
    }
    site.fleet.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(node=node, run_id=run_id, message_object_id=tree.object_id)
    )
    message = inflate_object_from_contents(tree.object_id, contents)
    assert isinstance(message, Message)
    reply = Message(doubled(message), reply_to=envelope)
    push(site, node, reply)


def doubled(message: Message) -> RecordDict:
    (values,) = message.content.array_records["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"num-examples": 1})
    return RecordDict({"arrays": ArrayRecord([values * 2]), "metrics": metrics})


def announce(site: SitePeer, node: Node, reply: Message) -> PushMessagesResponse:
    reply.metadata.__dict__["_message_id"] = reply.object_id
    request = PushMessagesRequest(
        node=node,
        messages_list=[message_to_proto(remove_content_from_message(reply))],
        message_object_trees=[get_object_tree(reply)],
    )
    pushed: PushMessagesResponse = site.fleet.PushMessages(request, timeout=5)
    return pushed


def push(site: SitePeer, node: Node, reply: Message) -> None:
    pushed = announce(site, node, reply)
    objects = get_all_nested_objects(reply)
    for name in dict.fromkeys(pushed.objects_to_push):
        part = PushObjectRequest(
            node=node,
            run_id=reply.metadata.run_id,
            session_id=pushed.session_id,
            object_id=name,
            object_content=objects[name].deflate(),
        )
        assert site.fleet.PushObject(part, timeout=5).stored


def test_a_plain_flower_client_is_served(federation: Federation, grid: StudyGrid) -> None:
    engine = federation.hub.coordinator.engine
    with federation.site("alpha") as alpha, ThreadPoolExecutor(1) as pool:
        node = activate(alpha, engine.keys["alpha"])
        served = pool.submit(answer_one, alpha, node)
        content = RecordDict({"arrays": ArrayRecord([np.arange(5.0)])})
        message = grid.create_message(content, "train", node.node_id, "1")
        (reply,) = grid.send_and_receive([message], timeout=10)
        served.result(5)
    (values,) = reply.content.array_records["arrays"].to_numpy_ndarrays()
    assert values.tolist() == [0, 2, 4, 6, 8]


def test_two_runs_at_once_keep_their_messages_apart(federation: Federation) -> None:
    engine = federation.hub.coordinator.engine
    runs = [engine.start_run("one"), engine.start_run("two")]
    grids = [StudyGrid(engine, run) for run in runs]

    def ask(grid: StudyGrid, site: str, value: float) -> list[float]:
        content = RecordDict({"arrays": ArrayRecord([np.array([value])])})
        message = grid.create_message(content, "train", engine.node_of(site), "1")
        (reply,) = grid.send_and_receive([message], timeout=10)
        (values,) = reply.content.array_records["arrays"].to_numpy_ndarrays()
        return list(values)

    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        peers = [(site, activate(site, engine.keys[site.name])) for site in (alpha, beta)]
        threads = [threading.Thread(target=answer_one, args=peer) for peer in peers]
        for thread in threads:
            thread.start()
        with ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(ask, grids[0], "alpha", 1.0),
                pool.submit(ask, grids[1], "beta", 10.0),
            ]
            assert [future.result(10) for future in asked] == [[2.0], [20.0]]
        for thread in threads:
            thread.join()
    for run in runs:
        engine.finish_run(run)


def test_a_crashed_node_is_active_again_at_once(federation: Federation) -> None:
    key = federation.hub.coordinator.engine.keys["alpha"]
    with federation.site("alpha") as before, federation.site("alpha") as after:
        assert activate(before, key) == activate(after, key)


def test_heartbeat_and_goodbye_are_understood(federation: Federation, grid: StudyGrid) -> None:
    engine = federation.hub.coordinator.engine
    with federation.site("beta") as beta:
        node = activate(beta, engine.keys["beta"])
        beat = SendNodeHeartbeatRequest(node=node, heartbeat_interval=30)
        assert beta.fleet.SendNodeHeartbeat(beat, timeout=5).success
        assert node.node_id in grid.get_node_ids()
        beta.fleet.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id), timeout=5)
        assert node.node_id not in grid.get_node_ids()


def test_a_finished_run_leaves_nothing_in_flowers_state(federation: Federation) -> None:
    engine = federation.hub.coordinator.engine
    before = len(engine.store)
    run = engine.start_run("short")
    grid = StudyGrid(engine, run)
    content = RecordDict({"larrey": ConfigRecord({"run": run.run_id})})
    assert grid.push_messages([grid.create_message(content, "train", engine.node_of("alpha"), "1")])
    assert len(engine.store) > before
    engine.finish_run(run)
    assert len(engine.store) == before


def test_a_studys_task_answered_over_the_plain_path_lacks_its_receipt(
    own_federation: Federation,
) -> None:
    federation = own_federation
    coordinator = federation.hub.coordinator
    digest = federation.propose(study())
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        for site in (alpha, beta):
            site.approve(digest)
        federation.launch(digest)
        node = activate(alpha, coordinator.engine.keys["alpha"])
        coordinator.presence.heard("alpha")
        pulled = alpha.fleet.PullMessages(PullMessagesRequest(node=node), timeout=10)
        envelope = message_from_proto(pulled.messages_list[0])
        push(alpha, node, Message(RecordDict(), reply_to=envelope))
        labels = {"study": "tiny", "site": "alpha", "reason": "receipt-missing"}
        registry = federation.hub.metrics.registry
        until(lambda: registry.get_sample_value("larrey_updates_rejected_total", labels) == 1)


def test_a_reply_over_the_plain_path_has_a_limit_in_bytes(
    federation: Federation, grid: StudyGrid
) -> None:
    engine = federation.hub.coordinator.engine
    with federation.site("alpha") as alpha:
        node = activate(alpha, engine.keys["alpha"])
        content = RecordDict({"ask": ConfigRecord({"size": 300})})
        grid.push_messages([grid.create_message(content, "train", node.node_id, "1")])
        pulled = alpha.fleet.PullMessages(PullMessagesRequest(node=node), timeout=10)
        reply = Message(RecordDict(), reply_to=message_from_proto(pulled.messages_list[0]))
        pushed = announce(alpha, node, reply)
        part = PushObjectRequest(
            node=node,
            run_id=reply.metadata.run_id,
            session_id=pushed.session_id,
            object_id="0" * 64,
            object_content=bytes(4 << 20),
        )
        for _ in range(64):
            assert not alpha.fleet.PushObject(part, timeout=5).stored
        with pytest.raises(grpc.RpcError, match="reply-too-large"):
            alpha.fleet.PushObject(part, timeout=5)


def test_a_site_cannot_answer_for_another_over_the_plain_path(
    federation: Federation, grid: StudyGrid
) -> None:
    engine = federation.hub.coordinator.engine
    answered: list[str] = []
    engine.on_reply(grid.run, answered.append)
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        nodes = [activate(site, engine.keys[site.name]) for site in (alpha, beta)]
        content = RecordDict({"ask": ConfigRecord({"size": 1})})
        grid.push_messages([grid.create_message(content, "train", nodes[0].node_id, "1")])
        pulled = alpha.fleet.PullMessages(PullMessagesRequest(node=nodes[0]), timeout=10)
        reply = Message(RecordDict(), reply_to=message_from_proto(pulled.messages_list[0]))
        reply.metadata.__dict__["_src_node_id"] = nodes[1].node_id
        assert not announce(beta, nodes[1], reply).objects_to_push
    assert answered == []


def test_an_object_counts_only_for_the_reply_that_announced_it(
    federation: Federation, grid: StudyGrid
) -> None:
    engine = federation.hub.coordinator.engine
    with federation.site("beta") as beta:
        node = activate(beta, engine.keys["beta"])
        content = RecordDict({"ask": ConfigRecord({"size": 2})})
        grid.push_messages([grid.create_message(content, "train", node.node_id, "1")])
        pulled = beta.fleet.PullMessages(PullMessagesRequest(node=node), timeout=10)
        reply = Message(RecordDict(), reply_to=message_from_proto(pulled.messages_list[0]))
        name = announce(beta, node, reply).objects_to_push[0]
        part = PushObjectRequest(
            node=node,
            run_id=grid.run.run_id,
            object_id=name,
            object_content=get_all_nested_objects(reply)[name].deflate(),
        )  # Flower takes it for any open session when none is named
        assert not beta.fleet.PushObject(part, timeout=5).stored
