"""The access log says who used which command, keeps it for months, and holds nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_protocol.access_log import DATABASE, Access, AccessLog

MONTH = 30.44 * 86400.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AccessLog]:
    made = AccessLog(tmp_path)
    yield made
    made.close()


def test_who_used_what_is_shown_in_order_of_time(log: AccessLog) -> None:
    log.add(Access(1.0, "ann", "study approve", "ok", person="dpo.ann"))
    log.add(Access(2.0, "bob", "ledger", "agent-not-running"))
    assert [(row["actor"], row["verb"], row["code"]) for row in log.rows()] == [
        ("ann", "study approve", "ok"),
        ("bob", "ledger", "agent-not-running"),
    ]
    assert [row["person"] for row in log.rows(until=2.0)] == ["dpo.ann"]
    assert [row["actor"] for row in log.rows(since=2.0)] == ["bob"]


@pytest.mark.parametrize(
    "access",
    [
        Access(1.0, "Jean Dupont, 12 rue X", "status", "ok"),
        Access(1.0, "ann", "opposition add 1850775123456", "ok"),
        Access(1.0, "ann", "status", "KeyError: '1850775123456'"),
    ],
)
def test_free_text_does_not_enter(log: AccessLog, access: Access) -> None:
    log.add(access)
    text = str(log.rows())
    assert "unknown" in text
    assert "Dupont" not in text
    assert "1850775123456" not in text


def test_lines_are_deleted_after_their_months(log: AccessLog) -> None:
    for month in (0, 5, 13):
        log.add(Access(month * MONTH, "ann", "status", "ok"))
    assert log.purge(now=13 * MONTH, months=12) == 1
    assert [row["at"] for row in log.rows()] == [5 * MONTH, 13 * MONTH]


def test_the_file_is_closed_to_others(log: AccessLog, tmp_path: Path) -> None:
    assert (tmp_path / DATABASE).stat().st_mode & 0o077 == 0
