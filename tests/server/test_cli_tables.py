"""What `larrey` prints as tables lines up, names its columns and leaves nothing out."""

from __future__ import annotations

import pytest

from larrey_protocol.signed import Certificate, Contribution
from larrey_server.cli_build import print_facts, print_table
from larrey_server.cli_certificate import tell
from larrey_server.cli_study import _row

DIGEST = "sha256:" + "ab" * 32


def test_a_table_is_as_wide_as_its_widest_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "N"), [("a-long-name", 1), ("b", "")])
    assert capsys.readouterr().out.splitlines() == [
        "NAME         N",
        "a-long-name  1",
        "b            -",
    ]


def test_a_table_without_rows_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME",), [])
    assert capsys.readouterr().out == ""


def test_a_truth_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"is_intact": True, "is_open": False}, as_json=False)
    assert capsys.readouterr().out == "is_intact  yes\nis_open    no\n"


def test_a_certificate_is_a_line_a_round_with_each_site_s_part_and_epsilon(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = (
        Contribution(site="alpha", round=1, outcome="contributed", epsilon=0.25, bytes=8),
        Contribution(site="beta", round=1, outcome="contributed", epsilon=0.25, bytes=8),
        Contribution(
            site="alpha", round=2, outcome="contributed", epsilon=0.5, flags=("unbounded",)
        ),
        Contribution(site="beta", round=2, outcome="refused", code="approval-revoked"),
    )
    certificate = Certificate(
        study=DIGEST,
        name="heart",
        outcome="FAILED",
        reason="too-few-sites",
        rounds_planned=6,
        rounds_applied=1,
        sites=("alpha", "beta"),
        matrix=cells,
        audit_head="1:" + DIGEST,
        ended_at=0.0,
    )
    tell(certificate)
    facts, _, table = capsys.readouterr().out.partition("\n\n")
    assert "1 of 6 applied" in facts
    assert "1970-01-01 00:00 UTC" in facts
    assert [line.split(maxsplit=2) for line in table.splitlines()] == [
        ["ROUND", "alpha", "beta"],
        ["1", "contributed", "contributed"],
        ["2", "contributed", "refused (approval-revoked)"],
        ["epsilon", "0.5", "0.25"],
        ["budget", "unbounded", "-"],
    ]


def test_a_study_s_row_tells_versions_apart_and_names_outdated_approvals() -> None:
    facts = {
        "name": "heart",
        "version": 2,
        "digest": DIGEST,
        "outcome": "",
        "state": "halted",
        "round": 3,
        "rounds": 6,
        "approved": ["alpha"],
        "refused": {},
        "outdated": ["beta"],
        "silent": [],
        "permit": "FR/1",
        "permit_state": "RENEWED",
        "stop": "halt",
        "stop_by": "coordinator",
        "stop_on": 0.0,
    }
    stopped = "halt ordered by coordinator on 1970-01-01 00:00"
    sites = "1 approved, 1 outdated"
    digest = "ab" * 6
    row = ("heart", 2, digest, "halted", "3/6", sites, "FR/1 RENEWED", stopped)
    assert _row(facts) == row
    ended = facts | {"outcome": "COMPLETE", "stop": ""}
    assert _row(ended)[3:6] == ("COMPLETE", "3/6", "1 approved")
