"""Calls that are opened and never made: who opened them is asked before anything is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_server.gatekeeper import MAX_CALLS
from larrey_server.serve import Hub
from tests.server.peers import Federation, Folder, SitePeer, until

BOTH = ("site alpha", "operator operator")
METHODS = ("Studies/List", "Exchange/Take", "Enrolment/Join", "Control/List")


class Silence:
    """Requests that do not come until the test is over."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        self._over.wait()
        return iter(())

    def end(self) -> None:
        self._over.set()


@pytest.fixture
def small(folder: Folder, tmp_path: Path) -> Iterator[Federation]:
    """Give a coordinator with no more threads than two sites need."""
    settings = folder.settings(tmp_path / "state")
    section = settings.coordinator.model_copy(update={"max_sites": 2})
    hub = Hub(settings.model_copy(update={"coordinator": section}))
    yield Federation(folder, hub)
    hub.stop()


@pytest.fixture
def silence() -> Iterator[Silence]:
    made = Silence()
    yield made
    made.end()


def opened(site: SitePeer, method: str, silence: Silence) -> Any:
    """Return a call whose request never comes."""
    call = site.channel.stream_unary(f"/larrey.v1.{method}", bytes, bytes)
    return call.future(_parts(silence), timeout=20)


def _parts(silence: Silence) -> Iterator[bytes]:
    yield from silence


def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    error = call.exception(timeout=5)
    return error.code(), error.details()


def test_idle_calls_of_a_revoked_site_end_at_once_and_starve_nobody(
    small: Federation, silence: Silence
) -> None:
    with small.site("alpha") as alpha, small.site("beta") as beta:
        alpha.studies.List(wire.ListStudiesRequest(), timeout=5)
        small.hub.coordinator.membership.revoke("alpha", "operator")
        calls = [opened(alpha, METHODS[n % len(METHODS)], silence) for n in range(60)]
        beta.studies.List(wire.ListStudiesRequest(), timeout=5)
        nobody = (grpc.StatusCode.UNAUTHENTICATED, "not-registered")
        assert {code_of(call) for call in calls} == {nobody}


def test_idle_calls_take_a_member_s_own_places_and_end_with_its_membership(
    small: Federation, silence: Silence
) -> None:
    with small.site("alpha") as alpha, small.site("beta") as beta:
        idle = [opened(alpha, "Studies/List", silence) for _ in range(MAX_CALLS)]
        small_calls = small.hub.gatekeeper.calls
        until(lambda: small_calls().get("site alpha", 0) == MAX_CALLS)
        beta.studies.List(wire.ListStudiesRequest(), timeout=5)
        with pytest.raises(grpc.RpcError) as caught:
            alpha.studies.List(wire.ListStudiesRequest(), timeout=5)
        assert caught.value.details() == "too-many-calls"
        small.hub.coordinator.membership.revoke("alpha", "operator")
        assert {code_of(call)[0] for call in idle} == {grpc.StatusCode.CANCELLED}
        until(lambda: not small_calls())


def test_a_call_without_a_request_is_refused(small: Federation) -> None:
    with small.site("beta") as beta:
        call = beta.channel.stream_unary("/larrey.v1.Studies/List", bytes, bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(iter(()), timeout=5)
        assert caught.value.details() == "request-missing"


def test_idle_polls_of_some_leave_others_their_own(small: Federation, silence: Silence) -> None:
    folder = small.folder
    operator = SitePeer(
        "operator", small.hub.address, folder.authority.certificate, folder.operator, folder.ada
    )
    with small.site("alpha") as alpha, small.site("beta") as beta, operator:
        idle = [opened(alpha, "Exchange/Take", silence) for _ in range(MAX_CALLS)]
        idle += [opened(operator, "Control/Watch", silence) for _ in range(MAX_CALLS)]
        until(lambda: small.hub.gatekeeper.calls() == dict.fromkeys(BOTH, MAX_CALLS))
        assert beta.take(timeout_s=5) is None  # there is no work, but an answer
        assert not any(call.done() for call in idle)
