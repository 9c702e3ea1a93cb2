"""The coordinator's access log: strangers do not fill it, and its own failure stops nobody."""

from __future__ import annotations

import sqlite3

import grpc
import pytest

from larrey_protocol.v1 import larrey_pb2 as wire
from tests.server.peers import Federation, SitePeer, until


def lines(federation: Federation) -> list[tuple[str, str, str]]:
    path = federation.hub.coordinator.state / "access.db"
    with sqlite3.connect(path) as db:
        found = db.execute("SELECT actor, verb, code FROM accesses ORDER BY seq").fetchall()
    db.close()
    return found


def knock(site: SitePeer) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        site.control.List(wire.ListStudiesRequest(), timeout=5)
    assert caught.value.details() == "not-allowed"


def test_a_site_that_knocks_without_end_is_written_once_a_minute(
    federation: Federation, alpha: SitePeer
) -> None:
    with federation.operator() as operator:
        for _ in range(20):
            knock(alpha)
        operator.list()
        operator.list()
    expected = [("alpha", "List", "permission-denied"), *[("operator", "List", "ok")] * 2]
    until(lambda: len(lines(federation)) >= len(expected))
    assert lines(federation) == expected


def test_commands_go_on_where_the_log_cannot_be_written(federation: Federation) -> None:
    path = federation.hub.coordinator.state / "access.db"
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE accesses")
    db.close()
    with federation.operator() as operator:
        assert operator.list() == []
