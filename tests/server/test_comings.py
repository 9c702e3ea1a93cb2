"""Sites that come late, answer late or are outside their training window, over the real port."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from larrey_protocol.canonical import digest_bytes
from larrey_protocol.signed import Answer, sign
from larrey_protocol.study import Study
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_server.flower.courier import Dispatch, Errand
from larrey_server.flower.engine import Engine
from larrey_server.presence import FARTHEST_S, Presence, opening
from larrey_server.round_values import Task
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.asking import Asking
from tests.server.peers import Federation, Folder, small_update, until
from tests.server.test_membership import invite, join, with_authority
from tests.server.test_on_call import answer, certified, site_of
from tests.server.test_study_over_grpc import approve_all

TINY = study(rounds__quorum=1)
HOUR_S = 3600.0


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 4e9))
@example(math.nan, 1.0)
def test_whatever_a_site_says_it_is_waited_for_eight_days_at_most(told: float, now: float) -> None:
    found = opening(told, now)
    assert found == 0.0 or now < found <= now + FARTHEST_S
    if now < told <= now + FARTHEST_S:
        assert found == told
    if math.isnan(told) or told <= now:
        assert found == 0.0


@given(st.lists(st.sampled_from([0.0, 100.0, 102.0, 500.0]), max_size=12))
def test_a_window_is_news_only_where_it_moved(told: list[float]) -> None:
    presence, known = Presence(lambda: 0.0), 0.0
    for at in told:
        is_news = abs(at - known) >= 5
        assert presence.opens("alpha", at) == is_news
        known = at if is_news else known
        assert presence.windows() == ({"alpha": known} if known else {})


def launched(federation: Federation, wanted: Study = TINY, sites: tuple[str, ...] = ()) -> str:
    """Launch a study that only some sites approved; all without any named."""
    if not sites:
        digest = approve_all(federation, wanted)
    else:
        digest = federation.propose(wanted)
        for name in sites:
            with federation.site(name) as site:
                assert site.approve(digest).recorded
    federation.launch(digest)
    return digest


def status(federation: Federation, digest: str) -> dict[str, Any]:
    coordinator = federation.hub.coordinator
    return coordinator.status(coordinator.book.find(digest))


def test_a_site_that_approves_after_the_launch_joins_the_next_round(
    federation: Federation,
) -> None:
    digest = launched(federation, sites=("alpha",))
    with federation.site("beta") as beta:
        assert beta.approve(digest).recorded
        until(lambda: site_of(status(federation, digest), "beta")["state"] != "not-joined")
        answer(federation, "alpha")
        work = beta.work()
        assert work.fields["round"] == 2
        assert beta.answer(work, TINY).accepted
        answer(federation, "alpha")
        assert beta.answer(beta.work(), TINY).accepted
        answer(federation, "alpha")
    cells = certified(federation, digest)
    assert cells["beta", 1][0] == "absent"
    assert cells["beta", 2] == cells["beta", 3] == ("contributed", "")
    assert status(federation, digest)["outcome"] == "PARTIAL"


def test_a_late_approval_that_a_kill_kept_from_the_rounds_joins_after_the_restart(
    folder: Folder, tmp_path: Path
) -> None:
    first = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    first.vouch(TINY.file.study.permit)
    digest = launched(first, sites=("alpha",))
    with first.site("beta") as beta:
        said = {"study": digest, "site": "beta", "decision": "approved", "answered_at": 0.0}
        yes = sign(Answer.model_validate(said | beta.law_of(digest)), beta.key)
        first.hub.coordinator.book.answer("beta", yes)  # kept, and then a kill
    assert site_of(status(first, digest), "beta")["state"] == "not-joined"
    first.hub.stop()
    second = Federation(folder, Hub(folder.settings(tmp_path / "state")))
    try:
        until(lambda: site_of(status(second, digest), "beta")["state"] == "away")
    finally:
        second.hub.stop()


@pytest.mark.parametrize("last", ["revoked", "withdrawn"])
def test_who_took_the_word_back_or_was_withdrawn_does_not_join(
    federation: Federation, last: str
) -> None:
    digest = launched(federation, sites=("alpha",))
    with federation.site("beta") as beta, federation.operator() as operator:
        if last == "withdrawn":
            operator.command(digest, "withdraw", "beta")
            assert beta.approve(digest).recorded
        else:
            assert beta.approve(digest).recorded
            until(lambda: site_of(status(federation, digest), "beta")["state"] != "not-joined")
            assert beta.approve(digest, "revoked").recorded
            assert beta.approve(digest).recorded
        answer(federation, "alpha")
        until(lambda: status(federation, digest)["applied"] == 1)
        found = site_of(status(federation, digest), "beta")
    expected = {"revoked": ("declined", "approval-revoked"), "withdrawn": ("not-joined", "")}
    assert (found["state"], found["code"]) == expected[last]


def test_a_readmitted_site_takes_part_again_once_its_approval_counts(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path / "folder")
    federation = Federation(folder, Hub(with_authority(folder, tmp_path / "state")))
    try:
        federation.vouch(TINY.file.study.permit)
        digest = launched(federation)
        federation.hub.coordinator.membership.revoke("beta", "operator")
        until(lambda: site_of(status(federation, digest), "beta")["code"] == "membership-ended")
        invitation, bootstrap = invite(federation, "beta")
        asking = Asking.make("beta", folder.sites["beta"][1])  # the key that the roster names
        join(federation, bootstrap, asking.signed("beta", invitation))
        until(lambda: site_of(status(federation, digest), "beta")["code"] == "")
        answer(federation, "alpha")
        until(lambda: status(federation, digest)["applied"] == 1)
        assert site_of(status(federation, digest), "beta")["state"] == "away"
    finally:
        federation.hub.stop()


def opens_at(federation: Federation, digest: str) -> float | None:
    found: float | None = site_of(status(federation, digest), "beta")["opens_at"]
    return found


def test_a_site_outside_its_window_is_sent_nothing(federation: Federation) -> None:
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        beta.opens_at = time.time() + HOUR_S
        beta.take()  # before the study is there: its conductor is told at the start
        digest = launched(federation)
        until(lambda: site_of(status(federation, digest), "beta")["state"] == "waiting")
        assert opens_at(federation, digest) == pytest.approx(beta.opens_at, abs=10)
        assert beta.take() is None
        text = federation.hub.metrics.expose().decode()
        name = 'larrey_coordinator_site_window_opens_timestamp_seconds{site="beta"} '
        assert float(text.split(name)[1].split("\n")[0]) == pytest.approx(beta.opens_at, abs=10)
        assert alpha.work() is not None


def test_a_site_that_was_asked_at_the_wrong_hour_is_asked_again_when_its_window_opens(
    federation: Federation,
) -> None:
    digest = launched(federation)
    with federation.site("beta") as beta:
        beta.opens_at = time.time() + HOUR_S
        assert beta.give(beta.work(), code="outside-window").accepted
        until(lambda: site_of(status(federation, digest), "beta")["state"] == "waiting")
        beta.opens_at = 0.0
        assert beta.answer(beta.work(), TINY).accepted
        assert opens_at(federation, digest) is None
        answer(federation, "alpha")
        until(lambda: status(federation, digest)["applied"] == 1)


@pytest.mark.parametrize("told", [math.nan, -1.0, 1.0])
def test_what_is_no_time_ahead_is_an_open_window(federation: Federation, told: float) -> None:
    digest = launched(federation)
    with federation.site("beta") as beta:
        beta.opens_at = told
        assert beta.work() is not None
    conductor = federation.hub.coordinator.conductor(digest)
    assert conductor is not None
    assert conductor.settle(10)
    assert opens_at(federation, digest) is None


@pytest.mark.parametrize("told", [math.inf, 4e9, 1e300])
def test_a_window_years_ahead_is_one_of_eight_days(federation: Federation, told: float) -> None:
    digest = launched(federation)
    with federation.site("beta") as beta:
        beta.opens_at = told
        beta.take()
        until(lambda: opens_at(federation, digest) is not None)
    ahead = (opens_at(federation, digest) or 0.0) - time.time()
    assert FARTHEST_S - 60 < ahead <= FARTHEST_S + 1


def late(federation: Federation) -> list[tuple[int, str]]:
    """Return the rounds and sites of the late answers on record."""
    trail = federation.hub.coordinator.journal.audit()
    return [(one.round, one.subject) for one in trail if one.action == "answer-late"]


def test_an_update_after_its_round_is_recorded_as_late_and_not_applied(
    federation: Federation,
) -> None:
    digest = launched(federation, study(rounds__quorum=1, rounds__deadline_s=1.0))
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        work = beta.work()
        assert alpha.answer(alpha.work(), TINY).accepted
        present = beta.work()
        update = small_update(TINY)
        receipt = beta.receipt(work, digest_bytes(update), len(update))
        for _ in range(2):  # told once, however often it is sent
            beta.store(update)
            assert beta.give(work, digest_bytes(update), receipt=receipt).code == "not-expected"
        until(lambda: bool(late(federation)))
        assert present.fields["round"] == 2
        assert beta.answer(present, TINY).accepted
        until(lambda: site_of(status(federation, digest), "beta")["state"] == "answered")
    assert late(federation) == [(1, "beta")]
    text = federation.hub.metrics.expose()
    assert b'larrey_updates_late_total{site="beta",study="tiny"} 1.0' in text


def test_an_upload_after_its_round_is_refused_and_recorded_as_late(
    federation: Federation,
) -> None:
    digest = launched(federation, study(rounds__quorum=1, rounds__deadline_s=1.0))
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        beta.work()
        with federation.operator() as operator:
            operator.command(digest, "pause")
        assert alpha.answer(alpha.work(), TINY).accepted
        until(lambda: status(federation, digest)["state"] == "paused")
        with pytest.raises(grpc.RpcError, match="not-expected"):
            beta.store(small_update(TINY))
        until(lambda: late(federation) == [(1, "beta")])


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), max_size=6))
def test_a_task_s_transfer_is_no_longer_than_the_task_is_old(
    spans: list[tuple[float, float]],
) -> None:
    clock = _Clock()
    engine = Engine({})
    try:
        dispatch = Dispatch(
            engine, bare_reply=lambda _: None, abandoned=lambda _: None, clock=clock
        )
        task = Task("s", 1, "train", 1, "model", 8, 60.0, "")
        errand = Errand("alpha", task, None, "id", 10.0)  # type: ignore[arg-type] # carries nothing
        dispatch._errands["alpha", "s"] = errand
        total = 0.0
        for begun, lasted in spans:
            clock.now = max(clock.now, 10.0, begun + lasted)
            dispatch.transferred("alpha", "model", begun)
            dispatch.transferred("alpha", "another", begun)
            total = min(clock.now - 10.0, total + clock.now - max(begun, 10.0))
            assert errand.transfer_s == pytest.approx(total)
            assert 0 <= errand.transfer_s <= clock.now - errand.since
    finally:
        engine.stop()


def test_a_site_s_history_tells_transfer_from_work(federation: Federation) -> None:
    digest = launched(federation)
    with federation.site("beta") as beta:
        work = beta.work()
        chunks = beta.exchange.Fetch(wire.FetchRequest(digest=str(work.fields["model"])))
        next(chunks)
        list(chunks)
        dispatch, message = federation.hub.coordinator.dispatch, work.message.metadata.message_id
        errand = dispatch.find("beta", message)
        assert errand is not None
        until(lambda: errand.transfer_s > 0)
        time.sleep(0.15)  # beta trains
        update = small_update(TINY)
        assert beta.store(update).complete
        name = digest_bytes(update)
        beta.give(work, name, receipt=beta.receipt(work, name, len(update)))
        answer(federation, "alpha")
        until(lambda: status(federation, digest)["applied"] == 1)
    kept = federation.hub.coordinator.journal.snapshot(digest)
    assert kept is not None
    ((worked, moved),) = kept["pace"]["beta"]["train"]
    assert worked >= 0.14
    assert 0 < moved < worked
    text = federation.hub.metrics.expose()
    labels = b'{kind="train",site="beta",study="tiny"} 1.0'
    assert b"larrey_coordinator_site_task_duration_seconds_count" + labels in text


def test_a_gathering_study_is_a_gauge_and_ends_by_itself_when_sites_come(
    federation: Federation,
) -> None:
    digest = launched(federation, study())  # a quorum of two, and both sites hung up
    federation.hub.coordinator.presence.lost("alpha")
    federation.hub.coordinator.presence.lost("beta")
    with federation.operator() as operator:
        operator.command(digest, "retry")
        facts = operator.find(digest)
    assert (facts["state"], [one["why"] for one in facts["missing"]]) == ("gathering", ["away"] * 2)
    assert b'larrey_run_gathering{study="tiny"} 1.0' in federation.hub.metrics.expose()
    with federation.site("alpha") as alpha, federation.site("beta") as beta:
        alpha.take()
        assert beta.work().fields["round"] == 1
    assert b'larrey_run_gathering{study="tiny"} 0.0' in federation.hub.metrics.expose()


def test_a_halted_study_stays_halted_whoever_joins_late(federation: Federation) -> None:
    digest = launched(federation, sites=("alpha",))
    federation.hub.coordinator.halt(digest, "permit-expired")
    with federation.site("beta") as beta:
        assert beta.approve(digest).recorded
        until(lambda: site_of(status(federation, digest), "beta")["state"] != "not-joined")
    assert status(federation, digest)["state"] == "halted"
