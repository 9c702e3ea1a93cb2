"""What becomes of the answers of a study's sites: lies, receipts, checks that take their time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.signed import Signed
from larrey_protocol.study import Study
from larrey_protocol.tensors import pack
from larrey_server.round_values import Ordered, SiteDown, SiteUp
from larrey_server.study_run import Arrived
from tests.server.study_bench import SITES, Bench, certificate, honest_update, make_receipt


def too_large(study: Study, site: str, model: str) -> bytes:
    layout = model_layout(study)
    return pack(layout, np.full(layout.size, 1000, np.float32))


def not_a_number(study: Study, site: str, model: str) -> bytes:
    layout = model_layout(study)
    return pack(layout, np.full(layout.size, np.nan, np.float32))


def other_shape(study: Study, site: str, model: str) -> bytes:
    data = honest_update(study, site, model)
    return data.replace(b"0.weight", b"0.weighs")


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (too_large, "update-over-norm"),
        (not_a_number, "update-not-finite"),
        (other_shape, "update-wrong-tensors"),
    ],
)
def test_a_bad_update_is_refused_by_code_and_the_others_go_on(
    bench: Bench, lie: object, code: str
) -> None:
    bench.update_of["beta"] = lie  # type: ignore[assignment]
    bench.launch()
    bench.play()
    paper = certificate(bench)
    assert paper.outcome == "PARTIAL"
    assert {c.code for c in paper.matrix if c.site == "beta"} == {code}
    assert {c.outcome for c in paper.matrix if c.site != "beta"} == {"contributed"}


def test_updates_are_dropped_once_their_round_is_applied(bench: Bench) -> None:
    bench.update_of["beta"] = too_large
    bench.launch()
    bench.play()
    assert list(bench.spool.folder.iterdir()) == []


def test_a_site_whose_answer_is_being_checked_is_not_asked_again(bench: Bench) -> None:
    bench.launch()
    site, task = bench.errands.waiting.pop(0)
    bench.answer(site, task)
    bench.run.handle(SiteDown(bench.now, site))
    bench.run.handle(SiteUp(bench.now, site))
    assert site not in [asked for asked, _ in bench.errands.waiting]


def test_a_check_that_outlasts_its_round_does_not_cost_the_site_the_next(bench: Bench) -> None:
    bench.launch()
    slow = next(errand for errand in bench.errands.waiting if errand[0] == "delta")
    bench.errands.waiting.remove(slow)
    bench.play(steps=6)  # three answers, three checks
    bench.answer(*slow)
    bench.now += 60.0
    bench.run.handle(SiteDown(bench.now, "gamma"))  # closes the round before delta's check ends
    assert bench.run.state.status == "closing"
    bench.run.handle(SiteUp(bench.now, "gamma"))
    bench.play()
    outcomes = [c.outcome for c in certificate(bench).matrix if c.site == "delta"]
    assert outcomes == ["late", "contributed", "contributed"]


def test_a_check_that_outlasts_its_attempt_counts_in_the_next_with_its_update(
    bench: Bench,
) -> None:
    bench.launch()
    asked = dict(bench.errands.waiting)
    bench.answer("alpha", asked["alpha"])
    bench.now += 60.0
    bench.run.handle(SiteDown(bench.now, "gamma"))  # repeats the round before the check ends
    assert bench.run.state.attempt == 2
    bench.work()
    (reply,) = bench.run.state.replies
    assert reply.update == digest_bytes(honest_update(bench.study, "alpha", asked["alpha"].model))


def test_an_update_that_counts_survives_whoever_else_drops_the_same_bytes(bench: Bench) -> None:
    bench.launch()
    site, task = bench.errands.waiting.pop(0)
    bench.answer(site, task)
    digest = digest_bytes(honest_update(bench.study, site, task.model))
    bench.spool.drop(digest)  # as when another study's upload of it is abandoned
    bench.work()
    bench.spool.drop(digest)
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"


def test_nothing_of_an_answer_stays_in_the_spool_when_the_study_ends_before_its_check(
    bench: Bench,
) -> None:
    bench.launch()
    bench.answer(*bench.errands.waiting.pop())
    bench.run.handle(Ordered(bench.now, "close", 2))
    assert bench.run.state.status == "ended"
    assert list(bench.spool.folder.iterdir()) == []


def test_a_code_that_is_no_code_is_not_repeated_to_anyone(bench: Bench) -> None:
    bench.code_of["delta"] = "/home/x: No such file"
    bench.launch()
    bench.play()
    assert {c.code for c in certificate(bench).matrix if c.site == "delta"} == {"malformed-code"}


def test_a_receipt_of_another_update_is_refused(bench: Bench) -> None:
    bench.launch()
    site, task = bench.errands.waiting.pop(0)
    update = honest_update(bench.study, site, task.model)
    digest = bench.spool.add_bytes(update)
    receipt = make_receipt(bench.study, site, replace(task.key, round=2), update, bench.key)
    bench.run.handle(Arrived(bench.now, site, task.key, digest, receipt, ""))
    assert bench.run.state.replies[0].code == "receipt-mismatch"
    assert not bench.spool.complete(digest)


def test_an_update_that_never_arrived_is_refused(bench: Bench) -> None:
    bench.launch()
    site, task = bench.errands.waiting.pop(0)
    update = honest_update(bench.study, site, task.model)
    receipt = make_receipt(bench.study, site, task.key, update, bench.key)
    digest = open_digest(receipt)
    bench.run.handle(Arrived(bench.now, site, task.key, digest, receipt, ""))
    assert bench.run.state.replies[0].code == "update-missing"


def open_digest(receipt: Signed) -> str:
    return str(json.loads(receipt.document)["update"])


def test_an_answer_that_came_in_time_counts_though_its_check_ends_later(bench: Bench) -> None:
    bench.launch()
    for _ in SITES:
        bench.answer(*bench.errands.waiting.pop(0))
    bench.pass_time(61.0)
    assert bench.run.wake() is None
    bench.play()
    assert certificate(bench).outcome == "COMPLETE"


def test_an_unsigned_lie_about_the_receipt_s_signer_is_refused(bench: Bench) -> None:
    bench.launch()
    site, task = bench.errands.waiting.pop(0)
    update = honest_update(bench.study, site, task.model)
    receipt = make_receipt(bench.study, site, task.key, update, bench.key)
    forged = receipt.model_copy(update={"signer": SigningKey.generate().public})
    digest = bench.spool.add_bytes(update)
    bench.run.handle(Arrived(bench.now, site, task.key, digest, forged, ""))
    assert bench.run.state.replies[0].code == "bad-signature"


def test_receipts_are_kept_as_they_were_signed(bench: Bench) -> None:
    bench.launch()
    bench.play()
    row = bench.journal.contributions(bench.study.digest)[0]
    (receipt,) = row.receipts
    assert Signed.from_bytes(receipt).signer == bench.key.public
