"""What a command does without the node's answer is on the access log, as what the door does is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from larrey_client.cli import main
from larrey_client.egress_log import EgressLog
from larrey_client.local import account
from larrey_client.settings import SiteSettings
from larrey_client.store import SiteStore
from larrey_protocol.access_log import AccessLog
from tests.client.node.conftest import Pki

Run = Callable[..., int]


@pytest.fixture
def run(settings: SiteSettings, site_file: Path) -> Run:
    """Return what runs a command at a site whose node does not run."""
    EgressLog(settings.site.state).close()  # as one that ran before left it
    return lambda *words: main([*words, "--config", str(site_file)])


def lines(settings: SiteSettings) -> list[tuple[str, str, str]]:
    rows = AccessLog(settings.site.state).rows()
    assert {row["actor"] for row in rows} <= {account()}
    return [(row["verb"], row["code"], row["person"]) for row in rows]


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        ("study list", "study list"),
        ("ledger", "ledger"),
        ("audit query", "audit query"),
        ("egress", "egress"),
        ("permit list", "permit list"),
        ("policy show", "policy show"),
        ("incident list", "incident list"),
        ("data list", "data list"),
        ("opposition count", "opposition count"),
        ("halt", "halt"),
        ("pause", "pause"),
    ],
)
def test_a_command_without_a_running_node_leaves_a_line(
    run: Run, settings: SiteSettings, words: str, verb: str
) -> None:
    assert run(*words.split()) == 0
    assert lines(settings) == [(verb, "ok", "")]


def test_a_refused_command_leaves_its_code(run: Run, settings: SiteSettings) -> None:
    assert run("study", "show", "no-such-study") != 0
    assert run("opposition", "check", "--file", "absent.txt") != 0
    assert run("audit", "verify") != 0
    assert lines(settings) == [
        ("study show", "study-unknown", ""),
        ("opposition check", "missing-file", ""),
        ("audit verify", "seal-missing", ""),
    ]


def test_no_argument_of_a_command_is_on_the_log(
    run: Run, settings: SiteSettings, tmp_path: Path
) -> None:
    (tmp_path / "objects.txt").write_text("patient-4711\n")
    assert run("opposition", "add", "--file", str(tmp_path / "objects.txt")) == 0
    assert lines(settings) == [("opposition add", "ok", "")]
    files = settings.site.state.glob("access.db*")
    assert not any(b"4711" in file.read_bytes() for file in files)


def test_who_signed_is_on_the_line(
    run: Run, settings: SiteSettings, pki: Pki, tmp_path: Path
) -> None:
    key = tmp_path / "it.pem"
    pki.people.it.save(key)
    assert run("halt") == 0
    assert run("resume", "--key", str(key)) == 0
    name = pki.people.name(pki.people.it)
    assert lines(settings) == [("halt", "ok", ""), ("stop terms", "ok", ""), ("resume", "ok", name)]


def test_a_bundle_of_an_incident_is_on_the_log_with_its_opening(
    run: Run, settings: SiteSettings, tmp_path: Path
) -> None:
    out = str(tmp_path / "one.zip")
    assert run("incident", "open", "--kind", "suspected", "--out", out) == 0
    assert lines(settings) == [("incident open", "ok", ""), ("incident export", "ok", "")]


def test_a_site_from_which_nothing_ever_left_says_so_and_opens_an_incident(
    settings: SiteSettings, site_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SiteStore.open(settings.site.state, lambda: 0.0).close()
    assert main(["egress", "--json", "--config", str(site_file)]) == 0
    assert json.loads(capsys.readouterr().out)["total_bytes"] == 0
    words = ["incident", "open", "--kind", "suspected", "--out", str(tmp_path / "incident.zip")]
    assert main([*words, "--config", str(site_file)]) == 0
    assert (tmp_path / "incident.zip").is_file()


def test_a_log_that_cannot_be_written_stops_no_halt(
    run: Run, settings: SiteSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    (settings.site.state / "access.db").write_bytes(b"no database, but long enough to be read" * 9)
    assert run("halt") == 0
    assert "not on the access log" in capsys.readouterr().err
    store = SiteStore.open(settings.site.state, lambda: 1.0)
    try:
        assert store.records.stops()
    finally:
        store.close()
