"""Who gets in: every refusal happens before a handler runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.node_pb2 import Node
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from larrey_protocol.certificates import issue_client, make_authority
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.gatekeeper import MAX_WATCHES
from tests.server.peers import NOW, Federation, Folder, running


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = Folder.make(tmp_path_factory.mktemp("federation"))
    yield from running(folder, tmp_path_factory.mktemp("state"))


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """Return how a call was refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def list_studies(channel: grpc.Channel) -> Any:
    with channel:
        return stubs.StudiesStub(channel).List(wire.ListStudiesRequest(), timeout=5)


def test_a_registered_site_gets_in(federation: Federation) -> None:
    with federation.site("alpha") as alpha:
        assert list_studies(alpha.channel).revision > 0


def test_a_caller_without_certificate_cannot_connect(federation: Federation) -> None:
    channel = federation.channel(None)
    assert refused(lambda: list_studies(channel))[0] is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_of_another_authority_cannot_connect(federation: Federation) -> None:
    foreign = issue_client(make_authority("foreign", now=NOW), "alpha", now=NOW)
    channel = federation.channel(foreign)
    assert refused(lambda: list_studies(channel))[0] is grpc.StatusCode.UNAVAILABLE


def test_an_unregistered_certificate_is_refused_whatever_its_name(federation: Federation) -> None:
    stranger = issue_client(federation.folder.authority, "alpha", now=NOW)
    channel = federation.channel(stranger)
    expected = (grpc.StatusCode.UNAUTHENTICATED, "not-registered")
    assert refused(lambda: list_studies(channel)) == expected


def test_a_plaintext_caller_cannot_connect(federation: Federation) -> None:
    channel = grpc.insecure_channel(federation.hub.address)
    assert refused(lambda: list_studies(channel))[0] is grpc.StatusCode.UNAVAILABLE


def test_a_site_may_not_use_control(federation: Federation) -> None:
    with federation.site("alpha") as alpha:
        code = refused(lambda: alpha.control.List(wire.ListStudiesRequest()))
    assert code == (grpc.StatusCode.PERMISSION_DENIED, "not-allowed")


def test_a_site_may_not_watch_a_study(federation: Federation) -> None:
    with federation.site("alpha") as alpha:
        code = refused(lambda: next(alpha.control.Watch(wire.StudyRequest(study="x"))))
    assert code == (grpc.StatusCode.PERMISSION_DENIED, "not-allowed")


def test_an_operator_may_not_act_as_a_site(federation: Federation) -> None:
    with federation.channel(federation.folder.operator) as channel:
        exchange, studies = stubs.ExchangeStub(channel), stubs.StudiesStub(channel)
        fleet = FleetStub(channel)
        denied = (grpc.StatusCode.PERMISSION_DENIED, "not-allowed")
        assert refused(lambda: exchange.Take(wire.TakeRequest(), timeout=5)) == denied
        assert refused(lambda: studies.List(wire.ListStudiesRequest(), timeout=5)) == denied
        assert refused(lambda: fleet.PullMessages(PullMessagesRequest(), timeout=5)) == denied


def test_a_site_may_not_speak_for_another_sites_node(federation: Federation) -> None:
    beta = federation.hub.coordinator.engine.node_of("beta")
    with federation.site("alpha") as alpha:
        request = PullMessagesRequest(node=Node(node_id=beta))
        code = refused(lambda: alpha.fleet.PullMessages(request, timeout=5))
    assert code == (grpc.StatusCode.PERMISSION_DENIED, "wrong-node")


def test_a_site_may_not_activate_another_sites_key(federation: Federation) -> None:
    key = federation.hub.coordinator.engine.keys["beta"]
    with federation.site("alpha") as alpha:
        request = ActivateNodeRequest(public_key=key, heartbeat_interval=30)
        code = refused(lambda: alpha.fleet.ActivateNode(request, timeout=5))
    assert code == (grpc.StatusCode.PERMISSION_DENIED, "wrong-node")


def test_a_site_may_neither_register_nor_unregister_nodes(federation: Federation) -> None:
    node = federation.hub.coordinator.engine.node_of("alpha")
    denied = (grpc.StatusCode.PERMISSION_DENIED, "not-allowed")
    with federation.site("alpha") as alpha:
        new = RegisterNodeFleetRequest(public_key=b"x")
        assert refused(lambda: alpha.fleet.RegisterNode(new)) == denied
        own = UnregisterNodeFleetRequest(node_id=node)
        assert refused(lambda: alpha.fleet.UnregisterNode(own)) == denied


def test_an_answer_signed_by_another_site_is_not_recorded(federation: Federation) -> None:
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        alpha.key = beta.key
        reply = alpha.approve("sha256:" + "0" * 64)
    assert (reply.recorded, reply.code) == (False, "wrong-signer")


def test_refusals_are_counted(federation: Federation) -> None:
    stranger = issue_client(federation.folder.authority, "nobody", now=NOW)
    sample = ("larrey_auth_failures_total", {"reason": "unknown_key"})
    registry = federation.hub.metrics.registry
    before = registry.get_sample_value(*sample) or 0
    refused(lambda: list_studies(federation.channel(stranger)))
    assert registry.get_sample_value(*sample) == before + 1


def test_members_may_ask_for_health(federation: Federation) -> None:
    with federation.site("alpha") as alpha:
        answer = HealthStub(alpha.channel).Check(HealthCheckRequest(), timeout=5)
    assert answer.status == HealthCheckResponse.SERVING


def test_nobody_may_hold_a_thread_by_watching_health(federation: Federation) -> None:
    with federation.site("alpha") as alpha:
        code = refused(lambda: next(HealthStub(alpha.channel).Watch(HealthCheckRequest())))
    assert code[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_caller_cannot_hold_more_than_its_share_of_calls(federation: Federation) -> None:
    with federation.channel(federation.folder.operator) as channel:
        control = stubs.ControlStub(channel)
        with federation.operator() as operator:
            from tests.protocol.samples import study

            digest = operator.propose(study())
        watches = [control.Watch(wire.StudyRequest(study=digest)) for _ in range(MAX_WATCHES)]
        for watch in watches:
            next(watch)
        code = refused(lambda: next(control.Watch(wire.StudyRequest(study=digest), timeout=5)))
        control.List(wire.ListStudiesRequest(), timeout=5)  # what waits takes no other's place
        for watch in watches:
            watch.cancel()
    assert code == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too-many-calls")
