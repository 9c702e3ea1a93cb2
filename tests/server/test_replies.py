"""Replies that sites hand in: what counts, what is refused, and with which code."""

from __future__ import annotations

import json
from queue import SimpleQueue

import grpc
import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.models import model_layout
from larrey_protocol.tensors import pack
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.server.exchange_bench import TINY, rejected, start, uploaded
from tests.server.peers import (
    Federation,
    SitePeer,
    make_give,
    small_update,
    until,
)
from tests.server.test_identity import refused


def test_an_update_without_receipt_does_not_count(federation: Federation, alpha: SitePeer) -> None:
    start(federation)
    work, digest, _ = uploaded(alpha)
    assert alpha.give(work, digest).code == "receipt-missing"
    until(lambda: rejected(federation, "receipt-missing") == 1)


def test_a_receipt_about_another_round_does_not_count(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    work, digest, nbytes = uploaded(alpha)
    receipt = alpha.receipt(work, digest, nbytes, round=2)
    assert alpha.give(work, digest, receipt=receipt).code == "receipt-mismatch"
    until(lambda: rejected(federation, "receipt-mismatch") == 1)


def test_a_receipt_signed_by_another_site_does_not_count(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    work, digest, nbytes = uploaded(alpha)
    with federation.site("beta") as beta:
        alpha.key = beta.key
    receipt = alpha.receipt(work, digest, nbytes)
    assert alpha.give(work, digest, receipt=receipt).code == "wrong-signer"


def test_an_update_that_was_not_uploaded_does_not_count(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    work = alpha.work()
    digest = "sha256:" + "2" * 64
    receipt = alpha.receipt(work, digest, model_layout(TINY).nbytes)
    assert alpha.give(work, digest, receipt=receipt).code == "update-missing"


def test_an_update_over_the_norm_bound_is_refused_by_the_worker(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    work = alpha.work()
    layout = model_layout(TINY)
    update = pack(layout, np.full(layout.size, 1e6, np.float32))
    alpha.store(update)
    digest = digest_bytes(update)
    assert alpha.give(work, digest, receipt=alpha.receipt(work, digest, len(update))).accepted
    until(lambda: rejected(federation, "update-over-norm") == 1)


def test_a_sites_own_code_reaches_the_study(federation: Federation, alpha: SitePeer) -> None:
    digest = start(federation)
    assert alpha.give(alpha.work(), code="trainer-crashed").accepted
    until(lambda: rejected(federation, "trainer-crashed") == 1)
    assert federation.hub.coordinator.book.find(digest).state == "open"


@pytest.mark.parametrize(
    "fields",
    [
        {"update": "", "code": ""},
        {"update": "", "code": "Free text with a patient's name"},
        {"update": "sha256:short", "code": ""},
        {"update": "", "code": "trainer-failed", "note": "x"},
        {"update": 1, "code": "trainer-failed"},
    ],
)
def test_a_reply_with_other_content_than_declared_is_malformed(
    federation: Federation, alpha: SitePeer, fields: dict[str, str | int]
) -> None:
    start(federation)
    content = RecordDict({"larrey": ConfigRecord(fields)})  # type: ignore[arg-type]
    reply = alpha.exchange.Give(make_give(alpha.work().message, content))
    assert (reply.accepted, reply.code) == (False, "malformed-reply")


def test_a_reply_that_lacks_an_object_is_malformed(federation: Federation, alpha: SitePeer) -> None:
    start(federation)
    content = RecordDict({"larrey": ConfigRecord({"update": "", "code": "trainer-failed"})})
    request = make_give(alpha.work().message, content)
    del request.objects[0]
    assert alpha.exchange.Give(request).code == "malformed-reply"


def test_a_malformed_reply_leaves_nothing_in_flowers_state(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    content = RecordDict({"larrey": ConfigRecord({"update": "", "code": "trainer-failed"})})
    request = make_give(alpha.work().message, content)
    del request.objects[0]
    engine = federation.hub.coordinator.engine
    state, before = engine.state, len(engine.store)  # beta's task
    assert alpha.exchange.Give(request).code == "malformed-reply"
    assert len(engine.store) == before
    asked = {m.metadata.dst_node_id for m in state.message_ins_store.values()}  # type: ignore[attr-defined]
    assert asked <= {engine.node_of("beta")}
    assert not state.message_res_store  # type: ignore[attr-defined]


def test_noise_instead_of_a_message_is_malformed(alpha: SitePeer) -> None:
    assert alpha.exchange.Give(wire.GiveRequest(message=b"\xff" * 40)).code == "malformed-reply"


def test_a_site_that_could_not_read_its_task_may_say_so(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    content = RecordDict({"larrey": ConfigRecord({"update": "", "code": "message-malformed"})})
    assert alpha.exchange.Give(make_give(alpha.work().message, content)).accepted


def test_a_failure_of_ours_is_told_without_its_text(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    alpha.work()
    update = small_update(TINY)
    spool = federation.hub.coordinator.spool
    (spool.folder / (digest_bytes(update)[7:] + ".alpha.part")).mkdir()
    assert refused(lambda: alpha.store(update)) == (grpc.StatusCode.INTERNAL, "internal-error")


def test_slow_callers_leave_room_for_the_others(federation: Federation) -> None:
    never: SimpleQueue[None] = SimpleQueue()
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        stalled = [
            peer.exchange.Store.future(iter(never.get, None))
            for peer in (alpha, beta)
            for _ in range(8)
        ]
        until(lambda: sum(federation.hub.gatekeeper.calls().values()) == 16)
        with federation.operator() as operator:
            assert operator.list() == []
        for call in stalled:
            call.cancel()
    for _ in stalled:
        never.put(None)


def test_an_endless_receipt_does_not_count(federation: Federation, alpha: SitePeer) -> None:
    start(federation)
    work, digest, nbytes = uploaded(alpha)
    receipt = alpha.receipt(work, digest, nbytes, ledger_head="1" * 20_000)
    assert alpha.give(work, digest, receipt=receipt).code == "malformed-document"


def test_a_receipt_that_is_no_text_does_not_count(federation: Federation, alpha: SitePeer) -> None:
    start(federation)
    work, digest, _ = uploaded(alpha)
    fields = {"kind": "receipt", "document": "\ud800", "signer": alpha.key.public, "signature": "A"}
    receipt = json.dumps(fields).encode()
    assert alpha.give(work, digest, receipt=receipt).code == "malformed-document"
