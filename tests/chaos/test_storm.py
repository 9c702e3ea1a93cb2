"""Whatever the network does, a study ends, says who missed what, and nobody pays twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from larrey_client.exchange import CHUNK_BYTES as SENT_BYTES
from larrey_server.exchange_service import CHUNK_BYTES as SERVED_BYTES
from tests.chaos.proxy import Fault
from tests.chaos.schedules import Strike
from tests.chaos.storm import SITES, play
from tests.chaos.storm_resume import Resumed, resume
from tests.chaos.storm_rules import complaints
from tests.chaos.weather import DEADLINE_S, Weather, study_of, weather

_SEEDS = 6
_TALK = 1 << 16
_ROUNDS = 3


@pytest.fixture(scope="module", autouse=True)
def moving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Resumed]]:
    """Give a transfer that goes on while the other tests run; it waits for its line alone."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(resume, tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weather]:
    with weather(tmp_path_factory.mktemp("storm"), SITES) as made:
        yield made


@pytest.mark.system
def test_a_study_under_any_schedule_ends_complete_or_says_what_is_missing(sky: Weather) -> None:
    first = int(os.environ.get("LARREY_CHAOS_SEED", "1"))
    played = list(play(sky, range(first, first + _SEEDS), _ROUNDS))
    assert [(one.seed, one.complaints) for one in played if one.complaints] == []
    assert {one.outcome for one in played} <= {"COMPLETE", "PARTIAL"}
    assert sum(len(one.ran.strikes) for one in played) >= _SEEDS
    assert sky.stand.unwanted_deaths() == []


@pytest.mark.system
def test_two_stalled_sites_hold_nobody_up_beyond_their_own_deadline(sky: Weather) -> None:
    stalled, others = SITES[:2], SITES[2:]
    study = study_of("stalled", SITES, _ROUNDS)
    sky.hospitals.propose(study)
    before = {site: line.passed.total() for site, line in sky.lines.items()}
    long = [Strike(0.0, site, Fault("stall"), 60.0) for site in stalled]
    ran = sky.run(study, long)
    passed = {site: line.passed.total() - before[site] for site, line in sky.lines.items()}
    assert ran.ended
    assert list(complaints(ran)) == []
    assert len(ran.pauses) == 0
    assert ran.seconds < _ROUNDS * DEADLINE_S + 3
    assert max(passed[site] for site in stalled) < min(passed[site] for site in others)


@pytest.mark.system
def test_a_cut_transfer_over_a_narrow_line_goes_on_where_it_was(moving: Future[Resumed]) -> None:
    moved = moving.result()
    assert moved.is_accepted
    assert moved.cuts == 2
    most = 1.02 * moved.nbytes + _TALK
    assert moved.nbytes <= moved.passed["down"] <= most + 2 * SERVED_BYTES
    assert moved.nbytes <= moved.passed["up"] <= most + 2 * SENT_BYTES
