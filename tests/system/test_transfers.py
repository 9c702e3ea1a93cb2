"""Transfers between node and coordinator go on where they were cut, whoever was restarted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from larrey_client.border import Border
from larrey_client.egress_log import EgressLog, open_log
from larrey_client.exchange import CHUNK_BYTES, Exchange, Tls
from larrey_client.model_spool import ModelSpool
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import TransportError
from larrey_protocol.models import model_layout
from larrey_protocol.tensors import pack
from larrey_server.exchange_service import CHUNK_BYTES as SERVED_BYTES
from tests.protocol.samples import study
from tests.server.exchange_bench import start
from tests.server.peers import Federation, Folder, Work, running

LARGE = study(model={"name": "mlp", "hidden": [1600, 1024]}, training__rounds=1)
LAYOUT = model_layout(LARGE)  # 6.6 MB: four chunks up, seven down


@dataclass
class Site:
    """What survives a restart of a node: its folder; and what was counted."""

    folder: Path
    received: int = 0

    @contextmanager
    def node(self, federation: Federation) -> Iterator[Exchange]:
        """Yield the connection of a node that starts now, with its own border around it."""
        credential, _ = federation.folder.sites["alpha"]
        tls = Tls(federation.folder.authority.certificate, credential.certificate, credential.key)
        log = EgressLog(self.folder)
        border = Border(log, self.folder, lambda: 1.0)
        exchange = Exchange(federation.hub.address, tls, self._count, border)
        try:
            yield exchange
        finally:
            exchange.close()
            log.close()

    def upload(self, exchange: Exchange, data: bytes, most_parts: int = 99) -> None:
        """Offer and send, but no more than so many parts before the line is cut."""
        path = self.folder / "update"
        path.write_bytes(data)

        def goes_on() -> bool:
            nonlocal most_parts
            most_parts -= 1
            return most_parts >= 0

        exchange.store(digest_bytes(data), path, timeout_s=20, resume=True, goes_on=goes_on)

    def download(self, exchange: Exchange, work: Work, most_parts: int = 99) -> bytes | None:
        """Fetch the model, but no more than so many parts; return it once it is whole."""

        def goes_on() -> bool:
            nonlocal most_parts
            most_parts -= 1
            return most_parts > 0

        model = str(work.fields["model"])
        spool = ModelSpool(self.folder)
        with spool.begin(LARGE.digest, model, LAYOUT.nbytes) as download:
            exchange.fetch(download, timeout_s=20, goes_on=goes_on)
            if not download.is_whole:
                return None
            file = download.finish()
        try:
            return os.pread(file, LAYOUT.nbytes, 0)
        finally:
            os.close(file)

    def _count(self, _: int, received: int) -> None:
        self.received += received


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.make(tmp_path / "keys")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "alpha"
    folder.mkdir()
    return Site(folder)


def sent_of(folder: Path) -> int:
    """Return the bytes of upload streams that the node's own log says it sent."""
    log = open_log(folder)
    try:
        rows = log.connection.execute(
            "SELECT coalesce(sum(bytes), 0) FROM messages WHERE method = 'Exchange/Store'"
        )
        return int(rows.fetchone()[0])
    finally:
        log.connection.close()


@pytest.mark.parametrize("restarted", ["node", "both"])
def test_a_transfer_goes_on_after_a_restart_and_sends_one_chunk_again_at_most(
    folder: Folder, site: Site, tmp_path: Path, restarted: str
) -> None:
    update = pack(LAYOUT, np.full(LAYOUT.size, 1e-6, np.float32))
    state = tmp_path / "state"

    def first(federation: Federation, exchange: Exchange) -> None:
        start(federation, LARGE)
        with federation.site("alpha") as alpha:
            work = alpha.work()
            assert site.download(exchange, work, most_parts=3) is None
            with pytest.raises(TransportError, match="upload-incomplete"):
                site.upload(exchange, update, most_parts=2)

    def second(federation: Federation, exchange: Exchange) -> None:
        with (
            federation.site("alpha") as alpha,
            federation.site("beta") as beta,
            ThreadPoolExecutor(1) as pool,
        ):
            other = pool.submit(beta.work)  # a round opens once both are there
            work = alpha.work()
            other.result()
            model = site.download(exchange, work)
            assert model is not None
            assert digest_bytes(model) == work.fields["model"]
            site.upload(exchange, update)
            receipt = alpha.receipt(work, digest_bytes(update), len(update))
            assert alpha.give(work, digest_bytes(update), receipt=receipt).accepted

    in_turns(folder, state, site, restarted, first, second)
    slack = 1 << 12  # envelopes of the parts
    assert LAYOUT.nbytes <= site.received <= LAYOUT.nbytes + SERVED_BYTES
    assert len(update) <= sent_of(site.folder) <= len(update) + CHUNK_BYTES + slack


Act = Callable[[Federation, Exchange], None]


def in_turns(
    folder: Folder, state: Path, site: Site, restarted: str, first: Act, second: Act
) -> None:
    """Do the first act, restart one side or both, do the second."""
    with contextmanager(running)(folder, state) as federation:
        with site.node(federation) as exchange:
            first(federation, exchange)
        if restarted == "node":
            with site.node(federation) as exchange:
                second(federation, exchange)
            return
    with contextmanager(running)(folder, state) as federation, site.node(federation) as exchange:
        second(federation, exchange)
