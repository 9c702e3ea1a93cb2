"""A schedule follows from its seed and has every fault; no lie about a study goes unnoticed."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from larrey_protocol.signed import Certificate, Contribution
from tests.chaos.proxy import KINDS, Fault, Kind
from tests.chaos.schedules import Strike, scaled, schedule
from tests.chaos.storm_rules import certificate_complaints, complaints, excused
from tests.chaos.weather import QUORUM, Ran, study_of
from tests.system.hospitals import Facts

_SITES = ("alpha", "beta", "gamma", "delta")
_SEEDS = range(1, 101)  # as `make chaos` plays them
_BYTES = 250_000
STUDY = study_of("tiny", _SITES, 2)


def of(seed: int) -> tuple[Strike, ...]:
    return schedule(seed, _SITES, QUORUM, _BYTES)


def test_a_seed_gives_the_same_schedule_each_time_and_another_seed_another() -> None:
    assert of(7) == of(7)
    assert len({of(seed) for seed in _SEEDS}) == len(_SEEDS)


def test_faults_of_one_site_follow_each_other_in_time() -> None:
    for seed in _SEEDS:
        for site in _SITES:
            own = [strike for strike in of(seed) if strike.site == site]
            ends = [0.0, *(strike.until for strike in own)]
            assert all(one.at >= end for one, end in zip(own, ends, strict=False)), seed


def test_a_hundred_schedules_bring_every_kind_to_every_site_and_take_quorum_away() -> None:
    strikes = [strike for seed in _SEEDS for strike in of(seed)]
    assert {(one.fault.kind, one.site) for one in strikes} == {
        (kind, site) for kind in KINDS for site in _SITES
    }
    count = Counter(one.fault.kind for one in strikes)
    assert min(count.values()) > len(strikes) / 20
    assert 10 < sum(is_outage(of(seed)) for seed in _SEEDS) < 40


def is_outage(strikes: tuple[Strike, ...]) -> bool:
    """Return whether so many sites are off for two deadlines at once that no quorum is left."""
    off = {one.site for one in strikes if one.seconds > 2.0}
    return len(_SITES) - len(off) < QUORUM


def test_a_unit_stretches_times_and_leaves_faults() -> None:
    for one, twice in zip(of(3), scaled(of(3), 2.0), strict=True):
        assert (twice.at, twice.seconds) == (2 * one.at, 2 * one.seconds)
        assert twice.fault == one.fault


def ran_with(*strikes: Strike, outcome: str = "contributed", pauses: float = math.nan) -> Ran:
    """Return a study whose round 1 lasted from second 10 to 12; alpha's outcome is given."""
    sites = {site: {"outcome": "contributed"} for site in _SITES} | {"alpha": {"outcome": outcome}}
    place: Facts = {"round": 1, "attempt": 1}
    events: list[Facts] = [
        {"event": "round-opened", "at": 10.0, **place},
        {"event": "round-applied", "at": 12.0, **place, "sites": sites},
    ]
    made = Ran(STUDY, 10.0, list(strikes), events, ended=True, until=12.0)
    if not math.isnan(pauses):
        made.pauses.append((pauses, "below-quorum"))
    return made


def struck(kind: Kind, at: float, seconds: float, site: str = "alpha") -> Strike:
    return Strike(at, site, Fault(kind), seconds)


def test_a_site_that_nothing_struck_has_to_contribute() -> None:
    assert list(complaints(ran_with())) == []
    assert "although nothing struck it" in "".join(complaints(ran_with(outcome="late")))
    elsewhere = struck("stall", 10.5, 1.0, site="beta")
    assert list(complaints(ran_with(elsewhere, outcome="late")))
    long_before = struck("stall", 1.0, 2.0)
    assert list(complaints(ran_with(long_before, outcome="late")))
    assert list(complaints(ran_with(struck("stall", 10.5, 1.0), outcome="late"))) == []


@pytest.mark.parametrize(("rounds", "is_fair"), [((3,), True), ((3, 5), True), ((3, 4), False)])
def test_a_site_may_be_left_out_of_a_round_for_being_slow_and_not_of_the_next(
    rounds: tuple[int, ...], is_fair: bool
) -> None:
    ran = ran_with()
    for number in rounds:
        sites = {"alpha": {"outcome": "absent", "code": "too-slow"}}
        place = {"round": number, "attempt": 1, "at": 20.0 + number}
        ran.events.append({"event": "round-opened", **place})
        ran.events.append({"event": "round-applied", **place, "sites": sites})
    assert (list(complaints(ran)) == []) is is_fair


@pytest.mark.parametrize(("waited", "is_excused"), [(1.1, True), (0.9, False)])
def test_a_site_that_got_no_processor_for_half_a_round_may_be_late(
    waited: float, is_excused: bool
) -> None:
    ran = ran_with(outcome="late")
    for event, seconds in zip(ran.events, (5.0, 5.0 + waited), strict=True):
        event["waited"] = {"alpha": {"1": seconds}, "beta": {"2": 9.0}}
    assert bool(list(complaints(ran))) is not is_excused
    assert excused(ran) == is_excused


def test_no_busy_machine_excuses_what_came_through_a_dead_line() -> None:
    ran = ran_with(struck("partition", 9.0, 5.0))
    for event, seconds in zip(ran.events, (0.0, 2.0), strict=True):
        event["waited"] = {"alpha": {"1": seconds}}
    assert list(complaints(ran))


def test_nothing_comes_through_a_line_that_passes_nothing() -> None:
    whole = struck("partition", 9.0, 5.0)
    assert "contributed through a partition" in "".join(complaints(ran_with(whole)))
    assert list(complaints(ran_with(whole, outcome="absent"))) == []
    assert list(complaints(ran_with(struck("partition", 9.0, 2.0)))) == []
    assert list(complaints(ran_with(struck("latency", 9.0, 5.0)))) == []


def test_a_study_pauses_only_where_quorum_is_gone() -> None:
    off = [struck("reset", 9.0, 5.0, site) for site in _SITES[1:]]
    assert list(complaints(ran_with(*off[:1], pauses=11.0)))
    fine = [one for one in complaints(ran_with(*off, pauses=11.0)) if "paused" in one]
    assert fine == []


def test_a_study_that_does_not_end_hung() -> None:
    hung = ran_with()
    hung.ended = False
    assert list(complaints(hung)) == ["it hung"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"outcome": "FAILED", "reason": "spool-full"}, "it failed: spool-full"),
        ({"matrix": ()}, "not contributed"),
    ],
)
def test_a_certificate_has_to_say_what_was_seen(changes: Facts, said: str) -> None:
    cells = tuple(Contribution(site=site, round=1, outcome="contributed") for site in _SITES)
    honest: Facts = {
        "study": STUDY.digest, "name": "tiny", "outcome": "COMPLETE", "rounds_planned": 1,
        "rounds_applied": 1, "sites": _SITES, "matrix": cells, "audit_head": "", "ended_at": 0.0,
    }  # fmt: skip
    found = "".join(certificate_complaints(ran_with(), Certificate(**(honest | changes))))
    assert (said in found) if said else not found
