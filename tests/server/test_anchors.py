"""The coordinator as a witness: it keeps the newest anchor of each site and lets go of none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.decisions import Anchor, AnchoredSpend
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import sign
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_server.anchors import SCHEMA, AnchorRow, newest_anchor, put_anchor
from larrey_server.serve import Hub
from tests.server.exchange_bench import TINY, start
from tests.server.peers import Federation, Folder, SitePeer, small_update


def make_anchor(peer: SitePeer, ledger: int, audit: int = 1, **changes: object) -> bytes:
    """Return where a site's ledger stood, signed by the site."""
    head = "sha256:" + f"{ledger:064x}"
    anchor = Anchor(
        site=peer.name,
        ledger_head=f"{ledger}:{head}",
        audit_head=f"{audit}:{head}",
        spent=(AnchoredSpend(family="f-00112233445566aa", units=ledger),),
        at=0.0,
    )
    return sign(anchor.model_copy(update=changes), peer.key).to_bytes()


def tell(peer: SitePeer, document: bytes) -> wire.AnswerReply:
    reply: wire.AnswerReply = peer.studies.Tell(wire.TellRequest(document=document))
    return reply


def listed(peer: SitePeer) -> list[bytes]:
    return list(peer.studies.List(wire.ListStudiesRequest()).anchors)


@pytest.fixture
def beta(federation: Federation) -> Iterator[SitePeer]:
    with federation.site("beta") as site:
        yield site


def give(peer: SitePeer, anchor: bytes) -> wire.GiveReply:
    """Answer the next task with an update and an anchor, as a node does."""
    work, update = peer.work(), small_update(TINY)
    peer.store(update)
    digest = digest_bytes(update)
    receipt = peer.receipt(work, digest, len(update))
    return peer.give(work, digest, receipt=receipt, anchor=anchor)


def test_what_comes_with_an_update_is_given_back_to_its_site_alone(
    federation: Federation, alpha: SitePeer, beta: SitePeer
) -> None:
    start(federation)
    anchor = make_anchor(alpha, 7)
    assert give(alpha, anchor).accepted
    assert listed(alpha) == [anchor]
    assert listed(beta) == []


def test_a_request_carries_the_anchors_of_the_studys_other_sites(
    federation: Federation, alpha: SitePeer, beta: SitePeer
) -> None:
    mine, other = make_anchor(alpha, 3), make_anchor(beta, 4)
    assert tell(alpha, mine).recorded
    assert tell(beta, other).recorded
    start(federation)
    assert take_witness(alpha) == [other]
    assert take_witness(beta) == [mine]


def take_witness(peer: SitePeer) -> list[bytes]:
    """Return the anchors beside the next request."""
    while True:
        request = wire.TakeRequest(node_version="test", studies_seen=peer.seen)
        reply = peer.exchange.Take(request, timeout=10)
        peer.seen = reply.studies_revision
        if reply.messages:
            return list(reply.witness)
        assert not reply.witness


def test_a_lower_anchor_never_takes_the_place_of_a_higher(
    federation: Federation, alpha: SitePeer, beta: SitePeer
) -> None:
    high = make_anchor(alpha, 9)
    for document in (make_anchor(alpha, 2), high, make_anchor(alpha, 8), make_anchor(alpha, 9)):
        assert tell(alpha, document).recorded
        assert tell(beta, document).recorded
    assert listed(alpha) == [high]


def test_an_anchor_that_another_site_kept_makes_its_owner_list_again(
    federation: Federation, alpha: SitePeer, beta: SitePeer
) -> None:
    book = federation.hub.coordinator.book
    before, anchor = book.revision("alpha"), make_anchor(alpha, 5)
    assert tell(beta, anchor).recorded
    assert book.revision("alpha") == before + 1
    assert listed(alpha) == [anchor]
    assert tell(beta, anchor).recorded
    assert book.revision("alpha") == before + 1  # no news


def test_only_the_sites_own_signature_makes_its_anchor(
    federation: Federation, alpha: SitePeer, beta: SitePeer
) -> None:
    start(federation)
    forged = make_anchor(beta, 9, site="alpha")
    assert tell(beta, forged).code == "wrong-signer"
    changed = make_anchor(alpha, 9).replace(b'\\"units\\":9', b'\\"units\\":8')
    assert tell(beta, changed).code == "bad-signature"
    assert give(alpha, make_anchor(beta, 9)).accepted  # the update is good, the anchor nobody's
    assert (listed(alpha), listed(beta)) == ([], [])


def test_an_anchor_of_nobody_here_is_not_taken(alpha: SitePeer) -> None:
    stranger = sign(Anchor.model_validate(
        {"site": "gamma", "ledger_head": "1:", "audit_head": "1:", "at": 0.0}
    ), SigningKey.generate())  # fmt: skip
    assert tell(alpha, stranger.to_bytes()).code == "unknown-site"


def test_a_coordinator_that_starts_again_still_knows(folder: Folder, tmp_path: Path) -> None:
    for ledger in (6, None):
        hub = Hub(folder.settings(tmp_path / "state"))
        try:
            with Federation(folder, hub).site("alpha") as alpha:
                if ledger:
                    anchor = make_anchor(alpha, ledger)
                    tell(alpha, anchor)
                assert listed(alpha) == [anchor]
        finally:
            hub.stop()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_highest_ever_told_is_kept(told: list[tuple[int, int]]) -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    for rank in told:
        kept = newest_anchor(db, "key")
        is_news = put_anchor(db, AnchorRow("key", *rank, b"anchor"))
        assert is_news == (kept is None or rank > (kept.ledger, kept.audit))
    kept = newest_anchor(db, "key")
    assert kept is not None
    assert (kept.ledger, kept.audit) == max(told)
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("DELETE FROM anchors")
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE anchors SET ledger = ledger - 1")
    db.close()
