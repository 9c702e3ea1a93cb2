"""The node of `tests.client.node`, beside a coordinator that keeps every byte it gets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.border.watched import WatchingPeer
from tests.client.node.conftest import (
    Pki,
    agent,
    approve,
    lawful,
    pki,
    settings,
    site_file,
    start,
    trainer,
)

__all__ = ["agent", "approve", "lawful", "pki", "settings", "site_file", "start", "trainer"]


@pytest.fixture
def peer(pki: Pki) -> Iterator[WatchingPeer]:
    coordinator = WatchingPeer()
    coordinator.start(pki.server, pki.authority.certificate)
    yield coordinator
    coordinator.stop()
