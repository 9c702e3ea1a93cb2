"""Training windows: hours on the wall clock, whatever the clock does to the night."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.settings import Trainer, load_settings
from larrey_client.windows import Windows, make_windows
from larrey_protocol.errors import FileError

PARIS = ZoneInfo("Europe/Paris")
DAY_S = 86400.0
clocks = st.builds(
    lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.integers(0, 59)
)
spans = st.tuples(clocks, clocks).filter(lambda pair: pair[0] != pair[1]).map("-".join)
zones = st.sampled_from(
    ["UTC", "Europe/Paris", "Europe/Dublin", "America/St_Johns", "Australia/Lord_Howe",
     "Asia/Kathmandu", "Africa/Casablanca", "Pacific/Apia", "America/Asuncion"]
)  # fmt: skip
moments = st.floats(1.3e9, 2.0e9)  # 2011 to 2033: Apia skips a day, Lord Howe moves by 30 minutes


def at(text: str, zone: dt.tzinfo = PARIS, fold: int = 0) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def night(*texts: str, zone: str = "Europe/Paris") -> Windows:
    return make_windows(texts, zone)


@given(st.lists(spans, min_size=1, max_size=4), zones, moments)
def test_the_next_opening_is_the_first_open_moment_from_now(
    texts: list[str], zone: str, now: float
) -> None:
    windows = make_windows(texts, zone)
    opens = windows.opens_at(now)
    if opens == 0.0:
        assert windows.is_open(now)
        return
    assert now < opens <= now + 3 * DAY_S
    assert windows.is_open(opens)
    assert not windows.is_open(opens - 1)
    step = max(60.0, (opens - now) / 50)
    between = [now + step * i for i in range(50) if now + step * i < opens]
    assert not any(windows.is_open(moment) for moment in between)


@given(spans, zones, moments)
def test_a_moment_is_inside_exactly_if_the_wall_clock_shows_so(
    text: str, zone: str, now: float
) -> None:
    wall = dt.datetime.fromtimestamp(now, ZoneInfo(zone)).strftime("%H:%M")
    start, end = text.split("-")
    inside = start <= wall < end if start < end else wall >= start or wall < end
    assert make_windows([text], zone).is_open(now) == inside


@given(clocks, clocks, clocks, zones, moments)
def test_windows_that_touch_or_overlap_are_their_union(
    a: str, b: str, c: str, zone: str, now: float
) -> None:
    first, second, third = sorted((a, b, c))
    if not first < second < third:
        return
    whole = make_windows([f"{first}-{third}"], zone)
    touching = make_windows([f"{second}-{third}", f"{first}-{second}"], zone)
    overlapping = make_windows([f"{first}-{third}", f"{second}-{third}"], zone)
    assert whole.opens_at(now) == touching.opens_at(now) == overlapping.opens_at(now)


def test_without_windows_it_is_always_open_and_until_midnight_is_midnight() -> None:
    assert Windows().opens_at(at("2026-07-01 12:00")) == 0.0
    evening = night("20:00-24:00")
    assert evening.is_open(at("2026-07-01 23:59"))
    assert not evening.is_open(at("2026-07-02 00:00"))


def test_a_window_over_midnight_opens_in_the_evening_and_ends_in_the_morning() -> None:
    windows = night("22:00-06:00")
    assert windows.opens_at(at("2026-07-01 12:00:30")) == at("2026-07-01 22:00")
    assert windows.opens_at(at("2026-07-02 05:59:59")) == 0.0
    assert windows.opens_at(at("2026-07-02 06:00")) == at("2026-07-02 22:00")


def test_a_window_that_the_clock_jumps_over_does_not_happen_that_night() -> None:
    windows = night("02:10-02:50")  # on 2026-03-29 the clock goes from 02:00 to 03:00
    assert windows.opens_at(at("2026-03-29 01:30")) == at("2026-03-30 02:10")
    later = night("02:30-05:00")
    assert later.opens_at(at("2026-03-29 01:30")) == at("2026-03-29 03:00")


def test_a_window_in_the_hour_that_comes_twice_happens_twice() -> None:
    windows = night("02:10-02:20")  # on 2026-10-25 the clock goes from 03:00 back to 02:00
    first, second = (at("2026-10-25 02:10", fold=fold) for fold in (0, 1))
    assert second == first + 3600
    assert windows.opens_at(first - 60) == first
    assert windows.opens_at(first + 600) == second
    again = night("01:00-02:30")  # it opens anew in the moment in which the clock goes back
    assert again.opens_at(at("2026-10-25 02:40")) == at("2026-10-25 02:00", fold=1)


def test_a_request_may_begin_half_a_minute_around_a_window_and_no_more() -> None:
    windows = night("22:00-06:00")
    for text, admitted in (
        ("21:59:20", False),
        ("21:59:40", True),
        ("02:00:00", True),
        ("06:00:20", True),
        ("06:00:40", False),
    ):
        assert windows.admits(at(f"2026-07-01 {text}")) == admitted


def test_the_machine_s_own_zone_is_used_where_none_is_named() -> None:
    now = at("2026-07-01 12:00")
    wall = dt.datetime.fromtimestamp(now)  # noqa: DTZ006 - the machine's zone is what is asked for
    ahead = (wall + dt.timedelta(hours=2)).strftime("%H:%M")
    windows = Trainer(windows=(f"{ahead}-{ahead[:-1]}9",)).hours
    assert windows.opens_at(now) == now + 7200


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('windows = ["22:00-22:00"]', "is empty"),
        ('windows = ["22:00-25:00"]', "windows"),
        ('windows = ["24:00-06:00"]', "windows"),
        ('windows = ["22-6"]', "windows"),
        ('timezone = "Europe/Pariss"', "did you mean Europe/Paris"),
        ('timezone = "../../etc/passwd"', "no time zone"),
        ('window = ["22:00-06:00"]', "Did you mean 'windows'"),
    ],
)
def test_what_is_no_window_is_an_error_that_says_so(site_file: Path, text: str, hint: str) -> None:
    site_file.write_text(f"{site_file.read_text()}\n[trainer]\n{text}\n")
    with pytest.raises(FileError, match=hint):
        load_settings(site_file)
