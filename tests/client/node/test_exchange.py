"""Closing the connection while other threads call: every call ends, none begins, nothing breaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from larrey_client.border import Border
from larrey_client.egress_log import EgressLog
from larrey_client.exchange import Exchange, Tls
from larrey_client.model_spool import Download
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import TransportError
from tests.client.node.conftest import Pki
from tests.client.node.peer import Peer, wait_until

BLOB = bytes(1 << 16)
DIGEST = digest_bytes(BLOB)


@pytest.fixture
def tls(pki: Pki) -> Tls:
    return Tls(pki.authority.certificate, pki.site.certificate, pki.site.key)


@pytest.fixture
def connect(peer: Peer, tls: Tls, tmp_path: Path) -> Iterator[Callable[[], Exchange]]:
    """Return what opens a connection with the node's own border around it."""
    (tmp_path / DIGEST.removeprefix("sha256:")).write_bytes(BLOB)
    peer.blobs[DIGEST] = BLOB
    log = EgressLog(tmp_path)

    def make() -> Exchange:
        border = Border(log, tmp_path, lambda: 1.0)
        return Exchange(f"localhost:{peer.port}", tls, lambda *_: None, border)

    yield make
    log.close()


def fetch(exchange: Exchange, folder: Path) -> None:
    """Fetch the blob once more from its beginning."""
    path = folder / f"model-{threading.get_ident()}"
    download = Download(path, DIGEST, len(BLOB))
    try:
        exchange.fetch(download, timeout_s=10)
        os.close(download.finish())
    finally:
        download.close()
        path.unlink(missing_ok=True)


def calls(exchange: Exchange, blob: Path) -> list[Callable[[], object]]:
    """Return one call of each form: one to one, one to many, many to one, and the long poll."""
    return [
        exchange.studies,
        lambda: fetch(exchange, blob.parent),
        lambda: exchange.store(DIGEST, blob, timeout_s=10, resume=True),
        lambda: exchange.take("1", 0),
    ]


def repeat(call: Callable[[], object], ends: list[str]) -> None:
    try:
        while True:
            call()
    except TransportError as error:
        ends.append(error.code)


@pytest.mark.parametrize("pause_s", [0.0, 0.002, 0.02, 0.05])
def test_whatever_other_threads_call_a_close_ends_it(
    connect: Callable[[], Exchange], tmp_path: Path, pause_s: float
) -> None:
    exchange, ends = connect(), list[str]()
    blob = tmp_path / DIGEST.removeprefix("sha256:")
    threads = [
        threading.Thread(target=repeat, args=(call, ends)) for call in calls(exchange, blob) * 2
    ]
    for thread in threads:
        thread.start()
    threading.Event().wait(pause_s)  # not for anything: another moment of the calls each time
    exchange.close()
    for thread in threads:
        thread.join(5)
    assert ends == ["coordinator-unreachable"] * len(threads)


def test_no_call_begins_once_closed_and_no_credentials_open_it_again(
    connect: Callable[[], Exchange], peer: Peer, tls: Tls, tmp_path: Path
) -> None:
    exchange = connect()
    exchange.close()
    exchange.reopen(tls)
    for call in calls(exchange, tmp_path / DIGEST.removeprefix("sha256:")):
        with pytest.raises(TransportError, match="coordinator-unreachable"):
            call()
    exchange.close()
    assert peer.takes == 0


def test_close_returns_when_a_poll_on_the_credentials_before_has_ended_too(
    connect: Callable[[], Exchange], peer: Peer, tls: Tls
) -> None:
    exchange, ends = connect(), list[str]()
    poll = threading.Thread(target=repeat, args=(lambda: exchange.take("1", 0), ends))
    poll.start()
    wait_until(lambda: peer.takes > 0)
    exchange.reopen(tls)
    exchange.close()
    poll.join(1)
    assert ends == ["coordinator-unreachable"]
