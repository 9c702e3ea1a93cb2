"""Calls of one kind, or of one caller, leave the others their threads; counts, no times."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.gatekeeper import MAX_CALLS, MAX_WATCHES
from tests.protocol.samples import study
from tests.server.peers import Federation, Folder, running, until
from tests.server.test_idle_calls import Silence, opened

_SITES = tuple(f"site{number:02}" for number in range(25))


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Federation]:
    yield from running(Folder.make(tmp_path / "folder", _SITES), tmp_path / "state")


@pytest.fixture
def silence() -> Iterator[Silence]:
    made = Silence()
    yield made
    made.end()


def test_polls_watchers_and_tensor_streams_to_the_full_leave_health_and_control_answering(
    crowd: Federation, silence: Silence
) -> None:
    peers = [crowd.site(name) for name in _SITES]
    with crowd.operator() as operator, crowd.channel(crowd.folder.operator) as channel:
        digest = operator.propose(study(sites=[{"name": s, "patients": 100} for s in _SITES]))
        watches = [
            stubs.ControlStub(channel).Watch(wire.StudyRequest(study=digest))  # type: ignore[no-untyped-call]
            for _ in range(MAX_WATCHES)
        ]
        assert all(next(watch).json for watch in watches)
        polls = [opened(peer, "Exchange/Take", silence) for peer in peers for _ in range(MAX_CALLS)]
        flood = [opened(peers[0], "Exchange/Store", silence) for _ in range(4 * MAX_CALLS)]
        refused = len(flood) - MAX_CALLS
        until(lambda: sum(call.done() for call in flood) == refused)
        until(lambda: crowd.hub.gatekeeper.calls().get("site site24", 0) == MAX_CALLS)
        assert len(polls) == 200
        for peer in (peers[0], peers[24]):
            answer = HealthStub(peer.channel).Check(HealthCheckRequest(), timeout=5)
            assert answer.status == HealthCheckResponse.SERVING
            peer.studies.List(wire.ListStudiesRequest(), timeout=5)
        assert operator.list()
        assert not any(call.done() for call in polls)
        with pytest.raises(grpc.RpcError) as caught:
            peers[24].fetch("sha256:" + "0" * 64)
        assert caught.value.details() == "not-offered"  # and not: too many calls
        for watch in watches:
            watch.cancel()
        silence.end()
    for peer in peers:
        peer.channel.close()


def test_health_is_served_while_the_aggregation_worker_is_at_work(federation: Federation) -> None:
    worker = federation.hub.coordinator._aggregator.pid
    until(lambda: os.getpriority(os.PRIO_PROCESS, worker) > os.getpriority(os.PRIO_PROCESS, 0))
    os.kill(worker, signal.SIGSTOP)  # as if one model took for ever
    try:
        with federation.site("alpha") as alpha:
            answer = HealthStub(alpha.channel).Check(HealthCheckRequest(), timeout=5)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert answer.status == HealthCheckResponse.SERVING
