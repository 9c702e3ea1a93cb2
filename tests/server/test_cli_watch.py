"""What `larrey study watch` prints: a line a round, stops with who and why, the end."""

from __future__ import annotations

from typing import Any

import pytest

from larrey_server.cli import main
from larrey_server.cli_status import describe, remark
from larrey_server.cli_watch import follow, lines

Facts = dict[str, Any]


def status(**changes: Any) -> Facts:
    sites = [
        {"site": "alpha", "state": "idle", "epsilon": 0.25},
        {"site": "beta", "state": "idle", "epsilon": 0.5},
        {"site": "gamma", "state": "idle", "epsilon": None},
    ]
    return {"state": "open", "round": 1, "rounds": 12, "sites": sites, "stop": ""} | changes


def ended_round(number: int, at: float, event: str = "round-applied", **codes: str) -> Facts:
    cells = {
        name: {"outcome": codes.get(name, "contributed:").partition(":")[0],
               "code": codes.get(name, ":").partition(":")[2]}
        for name in ("alpha", "beta", "gamma")
    }  # fmt: skip
    facts = {"event": event, "round": number, "attempt": 1, "sites": cells}
    return facts | {"at": at, "status": status()}


def test_a_round_is_one_line_and_all_lines_up() -> None:
    launch = {"verb": "launch", "at": 1000.0}
    told = list(
        lines(
            [
                status(orders=[launch]),
                {"event": "round-opened", "round": 1, "at": 1000.0},
                {"event": "site-answered", "site": "alpha", "round": 1, "code": "", "at": 1001.0},
                ended_round(1, 1062.4),
                ended_round(11, 4700.0, gamma="late:", beta="refused:site-not-ready"),
                ended_round(12, 4800.0, "round-not-applied", alpha="late:", beta="late:"),
            ]
        )
    )
    assert told[1:] == [
        "ROUND         TIME  CONTRIBUTED      EPSILON  REMARKS",
        "1/12       0:01:02          3/3          0.5",
        "11/12      1:01:40          1/3          0.5  1 late, 1 refused (site-not-ready)",
        "12/12      1:03:20          1/3          0.5  not applied, 2 late",
    ]


def test_time_counts_from_the_launch_that_was_watched() -> None:
    told = list(lines([status(orders=[]), {"event": "launched", "at": 10.0}, ended_round(1, 15.0)]))
    assert told[-1].split() == ["1/12", "0:00:05", "3/3", "0.5"]


def test_a_stop_says_who_and_why() -> None:
    told = lines(
        [
            {"event": "halt-ordered", "by": "coordinator", "code": "permit-revoked"},
            {"event": "resume-ordered", "by": "", "code": ""},
            {"event": "pause-ordered", "by": "ada", "code": ""},
            {"event": "site-stopped", "site": "beta", "code": "approval-revoked"},
            {"event": "study-ended", "outcome": "FAILED", "reason": "closed-by-order"},
        ]
    )
    assert list(told) == [
        "halted by coordinator (permit-revoked)",
        "resumed",
        "pause ordered by ada",
        "beta takes no further part: approval-revoked",
        "ended  FAILED  closed-by-order",
    ]


def test_a_status_says_who_stopped_the_study_and_why() -> None:
    halted = {"stop": "halt", "stop_by": "coordinator", "stop_code": "permit-expired"}
    line = describe(status(state="halted", stop_on=0.0, **halted))
    assert "halt ordered by coordinator (permit-expired) on 1970-01-01 00:00" in line


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [
        ("COMPLETE", "", 0),
        ("PARTIAL", "sites-missing", 3),
        ("FAILED", "below-quorum", 4),
        ("PARTIAL", "closed-by-order", 5),
        ("FAILED", "closed-by-order", 5),
    ],
)
def test_the_exit_status_says_how_the_study_ended(outcome: str, reason: str, code: int) -> None:
    ended = {"outcome": outcome, "reason": reason}
    end = {"event": "study-ended"} | ended
    assert follow([end], as_json=False) == follow([end], as_json=True) == code
    assert follow([status(state="ended", **ended)], as_json=False) == code  # ended before the watch


def test_a_watch_that_ends_before_the_study_is_no_success(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert follow([status(outcome="")], as_json=True) == 1
    assert "has not ended" in capsys.readouterr().err


def test_the_help_of_the_command_tells_every_exit_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["study", "watch", "--help"])
    told = capsys.readouterr().out
    assert all(f"{code} {name}" in told for code, name in ((3, "PARTIAL"), (4, "FAILED")))


MON_22 = 1_795_471_200.0  # a Monday, 22:00 UTC
AWAY = {"site": "beta", "why": "away", "code": "", "reason": "", "until": None}
CLOSED = {"site": "gamma", "why": "outside-window", "code": "", "reason": "", "until": MON_22}
LEFT_OUT = {"site": "delta", "why": "excluded", "code": "", "reason": "it lies", "until": None}
GONE = {"site": "mu", "why": "stopped", "code": "approval-revoked", "reason": "", "until": None}


def gathering(**changes: Any) -> Facts:
    waits = {"state": "gathering", "quorum": 2, "present": 1, "required": ["gamma"]}
    return status(**(waits | {"missing": [AWAY, CLOSED, LEFT_OUT, GONE]} | changes))


def test_a_study_that_gathers_says_who_is_missing_and_why() -> None:
    assert describe(gathering()).splitlines() == [
        "gathering  round 1/12  1 of the 2 sites that a round needs are there",
        "  beta is not connected",
        "  gamma waits for its training window until Mon 22:00 UTC; no round without it",
        "  delta is excluded: it lies",
        "  mu takes no further part (approval-revoked)",
    ]
    assert remark(gathering()) == "waits for sites; missing: beta, gamma, delta, mu"


def test_a_study_that_paused_itself_says_why_and_what_to_do() -> None:
    paused = gathering(
        state="paused", stop="pause", stop_code="below-quorum", stop_by="", stop_on=None,
        missing=[AWAY], next_step="larrey study retry heart",
    )  # fmt: skip
    why = "paused itself: too few sites answered, and no spare attempt is left"
    lines_of = describe(paused).splitlines()
    assert why in lines_of[0]
    assert lines_of[1:] == ["  beta is not connected", "  next: larrey study retry heart"]
    assert remark(paused) == f"{why}; next: larrey study retry heart"
    told = lines([{"event": "study-paused", "by": "", "code": "below-quorum", "status": paused}])
    assert list(told) == [f"{why}; next: larrey study retry heart"]


def test_each_site_of_an_open_round_is_told_with_what_is_known() -> None:
    sites = [
        {"site": "alpha", "state": "working", "code": "", "due_at": MON_22},
        {"site": "beta", "state": "waiting", "code": "", "opens_at": MON_22},
        {"site": "gamma", "state": "excluded", "code": "", "reason": "it lies"},
        {"site": "delta", "state": "refused", "code": "site-not-ready"},
        {"site": "mu", "state": "answered", "code": ""},
    ]
    assert describe(status(sites=sites)).split("  ")[2:] == [
        "alpha:working (due Mon 22:00 UTC)",
        "beta:waiting (window opens Mon 22:00 UTC)",
        "gamma:excluded (it lies)",
        "delta:refused (site-not-ready)",
        "mu:answered",
    ]


def test_what_happens_on_call_is_told_with_who_and_why() -> None:
    opens = {"site": "gamma", "state": "waiting", "opens_at": MON_22}
    told = lines(
        [
            {"event": "site-excluded", "site": "beta", "reason": "it lies", "by": "ada"},
            {"event": "site-included", "site": "beta", "by": "ben"},
            {"event": "round-extended", "seconds": 600.0, "by": "ada"},
            {"event": "site-joined", "site": "beta"},
            {"event": "answer-late", "site": "beta", "round": 3},
            {"event": "round-gathering", "round": 4, "status": gathering(missing=[AWAY])},
            {"event": "site-window", "site": "gamma", "status": status(sites=[opens])},
            {
                "event": "site-window",
                "site": "gamma",
                "status": status(sites=[{"site": "gamma", "state": "working", "opens_at": None}]),
            },
        ]
    )
    assert list(told) == [
        "beta is excluded by ada (it lies)",
        "beta takes part again by order of ben",
        "the open round has 600 seconds more by order of ada",
        "beta takes part from the next round on",
        "beta answered round 3 too late; that is not applied",
        "round 4 waits for 2 sites: beta is not connected",
        "gamma waits for its training window until Mon 22:00 UTC",
        "gamma is inside its training window",
    ]


def test_a_round_that_a_person_repeated_says_who() -> None:
    event = ended_round(2, 10.0, "round-not-applied", beta="halted:round-retried") | {"by": "ada"}
    assert list(lines([event]))[-1].endswith(
        "not applied, retried by ada, 1 halted (round-retried)"
    )
