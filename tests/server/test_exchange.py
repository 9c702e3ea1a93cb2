"""Work out, results in: long polls, resumed uploads, and what a site may not do."""

from __future__ import annotations

import datetime as dt
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.models import phase_layout
from larrey_protocol.tensors import pack
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.server.exchange_bench import BIG, CALLED, TINY, start
from tests.server.peers import (
    CHUNK,
    Federation,
    Folder,
    SitePeer,
    running,
    small_update,
    until,
)
from tests.server.test_identity import refused


def test_a_waiting_site_is_woken_by_its_task(federation: Federation, alpha: SitePeer) -> None:
    digest = federation.propose(TINY)
    alpha.approve(digest)
    with federation.site("beta") as beta:
        beta.approve(digest)
    alpha.take()  # learns the revision; the next poll waits
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(alpha.work)
        until(lambda: federation.hub.coordinator.engine.bell("alpha").is_waited_on)
        begun = time.monotonic()
        federation.launch(digest)
        work = waiting.result(5)
    assert work is not None
    assert work.fields["round"] == 1
    assert time.monotonic() - begun < 1


def test_a_waiting_site_is_woken_by_a_proposal(federation: Federation, alpha: SitePeer) -> None:
    alpha.take()
    seen = alpha.seen
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(alpha.take)
        until(lambda: federation.hub.coordinator.engine.bell("alpha").is_waited_on)
        federation.propose(TINY)
        assert waiting.result(5) is None
    assert alpha.seen != seen
    listed = alpha.studies.List(wire.ListStudiesRequest())
    assert len(listed.proposals) == 1
    assert listed.revision == alpha.seen


def test_a_newer_poll_of_the_same_site_displaces_the_older(
    federation: Federation, alpha: SitePeer
) -> None:
    alpha.take()
    with ThreadPoolExecutor(1) as pool, federation.site("alpha") as twin:
        older = pool.submit(alpha.take)
        until(lambda: federation.hub.coordinator.engine.bell("alpha").is_waited_on)
        newer = twin.exchange.Take.future(wire.TakeRequest(studies_seen=alpha.seen))
        assert older.result(5) is None
        newer.cancel()


def test_a_site_that_lost_its_connection_gets_its_task_again(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    before = alpha.work()
    with federation.site("alpha") as again:
        after = again.work()
        assert after.fields == before.fields
        assert after.message.metadata.message_id != before.message.metadata.message_id
        assert again.answer(after, TINY).accepted
    assert alpha.give(before, code="trainer-failed").code == "not-expected"


def test_a_site_whose_poll_breaks_is_down_at_once(federation: Federation, alpha: SitePeer) -> None:
    coordinator, digest = federation.hub.coordinator, start(federation)
    alpha.work()
    row = coordinator.book.find(digest)
    until(lambda: coordinator.status(row)["sites"][0]["state"] == "working")
    waiting = alpha.exchange.Take.future(wire.TakeRequest(studies_seen=alpha.seen))
    until(lambda: coordinator.engine.bell("alpha").is_waited_on)
    waiting.cancel()
    until(lambda: coordinator.status(row)["sites"][0]["state"] == "away", limit_s=5)


def test_a_task_is_not_sent_again_over_the_same_connection(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    alpha.work()
    with pytest.raises(grpc.RpcError):
        alpha.take(timeout_s=0.3)


def test_a_cut_upload_resumes_where_it_ended(federation: Federation, alpha: SitePeer) -> None:
    start(federation, BIG)
    work = alpha.work()
    update = small_update(BIG)
    cut = len(update) // 2
    assert alpha.store(update, until=cut).have_bytes == cut
    offer = wire.OfferRequest(digest=digest_bytes(update), total_bytes=len(update))
    assert alpha.exchange.Offer(offer).have_bytes == cut
    reply = alpha.store(update, offset=cut)
    assert (reply.complete, reply.have_bytes) == (True, len(update))
    digest = digest_bytes(update)
    receipt = alpha.receipt(work, digest, len(update))
    assert alpha.give(work, digest, receipt=receipt).accepted


def test_a_download_resumes_at_an_offset(federation: Federation, alpha: SitePeer) -> None:
    start(federation, BIG)
    model = str(alpha.work().fields["model"])
    whole = alpha.fetch(model)
    assert digest_bytes(whole) == model
    assert alpha.fetch(model, offset=1000) == whole[1000:]


def test_only_the_model_of_ones_own_task_is_readable(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    work = alpha.work()
    update = small_update(TINY, seed=5)
    alpha.store(update)
    for digest in (digest_bytes(update), "sha256:" + "0" * 64, "../../signing.pem"):
        code = refused(lambda digest=digest: alpha.fetch(digest))  # type: ignore[misc]
        assert code == (grpc.StatusCode.NOT_FOUND, "not-offered")
    assert alpha.fetch(str(work.fields["model"]))


def test_an_upload_without_a_task_is_refused(federation: Federation, alpha: SitePeer) -> None:
    code = refused(lambda: alpha.store(small_update(TINY)))
    assert code == (grpc.StatusCode.FAILED_PRECONDITION, "not-expected")


def test_an_upload_of_another_size_than_the_studys_is_refused(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    alpha.work()
    code = refused(lambda: alpha.store(small_update(TINY) + b"x"))
    assert code == (grpc.StatusCode.FAILED_PRECONDITION, "not-expected")


def test_more_bytes_than_announced_are_refused(federation: Federation, alpha: SitePeer) -> None:
    start(federation)
    alpha.work()
    update = small_update(TINY)
    part = wire.StorePart(digest=digest_bytes(update), total_bytes=len(update), data=update + b"x")
    code = refused(lambda: alpha.exchange.Store(iter([part])))
    assert code == (grpc.StatusCode.RESOURCE_EXHAUSTED, "upload-too-large")


def test_bytes_that_are_not_the_announced_blob_are_refused(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    alpha.work()
    update = small_update(TINY)
    part = wire.StorePart(digest="sha256:" + "1" * 64, total_bytes=len(update), data=update)
    code = refused(lambda: alpha.exchange.Store(iter([part])))
    assert code == (grpc.StatusCode.FAILED_PRECONDITION, "wrong-digest")


def test_a_second_upload_for_a_task_takes_the_place_of_the_first(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation)
    alpha.work()
    first, second = small_update(TINY, 1), small_update(TINY, 2)
    assert alpha.store(first).complete
    assert alpha.store(second).complete
    spool = federation.hub.coordinator.spool
    assert not spool.complete(digest_bytes(first))
    assert spool.complete(digest_bytes(second))


def test_a_slow_upload_goes_on_when_its_round_is_repeated(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation, BIG)
    alpha.work()
    update = small_update(BIG)
    cut = len(update) // 2
    alpha.store(update, until=cut)
    dispatch = federation.hub.coordinator.dispatch
    (errand,) = [e for e in dispatch._errands.values() if e.site == "alpha"]
    errand.courier.cancel("alpha", errand.task)
    errand.courier.send("alpha", replace(errand.task, attempt=2))
    offer = wire.OfferRequest(digest=digest_bytes(update), total_bytes=len(update))
    assert alpha.exchange.Offer(offer).have_bytes == cut
    errand.courier.cancel("alpha", replace(errand.task, attempt=2))
    errand.courier.send("alpha", replace(errand.task, round=2, model="sha256:" + "3" * 64))
    assert federation.hub.coordinator.spool.have(digest_bytes(update), "alpha") == 0


def test_each_call_of_a_round_takes_an_upload_of_its_own_size(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation, CALLED)
    with federation.site("beta") as beta:
        for site in (beta, alpha):
            assert site.answer(site.work(), CALLED).accepted
        work = alpha.work()
        assert work.fields["phase"] == "evaluate"
        with pytest.raises(grpc.RpcError) as caught:
            alpha.store(small_update(CALLED))
        assert caught.value.details() == "not-expected"
        told = pack(phase_layout(CALLED, "evaluate"), np.array([0.5], np.float32))
        for site, asked in ((alpha, work), (beta, beta.work())):
            assert site.store(told).complete  # the same bytes from both
            digest = digest_bytes(told)
            receipt = site.receipt(asked, digest, len(told))
            assert site.give(asked, digest, receipt=receipt).accepted
        assert alpha.work().fields["round"] == 2


def test_an_upload_is_not_carried_over_to_another_call_on_the_same_model(
    federation: Federation, alpha: SitePeer
) -> None:
    start(federation, CALLED)
    alpha.work()
    update = small_update(CALLED)
    alpha.store(update)
    dispatch = federation.hub.coordinator.dispatch
    (errand,) = [e for e in dispatch._errands.values() if e.site == "alpha"]
    errand.courier.cancel("alpha", errand.task)
    errand.courier.send("alpha", replace(errand.task, phase="evaluate"))
    assert federation.hub.coordinator.spool.have(digest_bytes(update), "alpha") == 0


def test_a_task_survives_the_end_of_its_flower_run(federation: Federation, alpha: SitePeer) -> None:
    start(federation)
    before = alpha.work()
    engine = federation.hub.coordinator.engine
    for record in engine.state.task_token_store.values():  # type: ignore[attr-defined]
        record.active_until = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)  # as after a long standstill
    engine.renew_leases()
    after = alpha.work()
    assert after.fields["model"] == before.fields["model"]
    assert alpha.answer(after, TINY).accepted


def test_what_an_earlier_process_left_is_swept_but_a_running_upload_is_not(
    folder: Folder, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    update = small_update(BIG)
    for federation in running(folder, state):
        start(federation, BIG)
        with federation.site("alpha") as alpha:
            alpha.work()
            alpha.store(update, until=CHUNK // 2)
            assert (
                federation.hub.coordinator.spool.have(digest_bytes(update), "alpha") == CHUNK // 2
            )
    orphan = state / "spool" / ("4" * 64)
    orphan.write_bytes(b"x")
    os.utime(orphan, (1e9, 1e9))
    for federation in running(folder, state):
        assert not orphan.exists()
        assert federation.hub.coordinator.spool.have(digest_bytes(update), "alpha") == CHUNK // 2
