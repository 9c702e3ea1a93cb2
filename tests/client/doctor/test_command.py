"""`larrey-site doctor` as a person, a script and a mail reader use it."""

from __future__ import annotations

import json
import logging
import stat
import threading
import time
from pathlib import Path

import pytest

from larrey_client.cli import main
from larrey_client.doctor import CHECKS, look_at_start
from larrey_client.settings import SiteSettings, load_settings
from larrey_protocol.checkup import Check, Text, examine, exit_status, log_findings, tell
from larrey_protocol.errors import FileError
from tests.client.doctor.conftest import Patient
from tests.client.doctor.faults import FAULTS

Words = pytest.CaptureFixture[str]


def files(patient: Patient) -> list[Path]:
    """Return what lies there, but for what SQLite makes for any reader."""
    found = patient.folder.rglob("*")
    return sorted(path for path in found if path.suffix not in {".db-shm", ".db-wal"})


def test_a_site_that_is_well_may_have_warnings_and_its_folders_stay_as_they_were(
    patient: Patient, settings: SiteSettings, capsys: Words
) -> None:
    before = files(patient)
    status = main(["doctor", "--json", "--config", str(patient.file)])
    told = json.loads(capsys.readouterr().out)
    assert [one for one in told["checks"] if one["status"] == "failed"] == []
    assert status == 0
    assert (told["version"], told["site"], told["is_ready"]) == (1, "alpha", True)
    assert [one["code"] for one in told["checks"]] == [check.code for check in CHECKS]
    assert told["counts"]["failed"] == 0
    assert files(patient) == before


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_a_terminal_of_80_columns_shows_failures_first_each_with_a_step(
    patient: Patient, capsys: Words, lang: str
) -> None:
    patient.edit("heart.csv", "away.csv")
    assert main(["doctor", "--lang", lang, "--config", str(patient.file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == {"en": "FAILED   data-unreadable", "fr": "ÉCHEC    data-unreadable"}[lang]
    assert any(line.startswith("         > ") for line in lines[1:6])
    assert max(map(len, lines)) <= 80 or any("/" in line for line in lines if len(line) > 80)


def test_a_report_is_a_new_closed_file_without_secrets(patient: Patient, capsys: Words) -> None:
    patient.env.setenv("https_proxy", "http://user:hunter2@127.0.0.1:9")
    report = patient.folder / "doctor.txt"
    command = ["doctor", "--report", str(report), "--config", str(patient.file)]
    assert main(command) == 1
    text = report.read_text()
    assert "alpha" in text
    assert "proxy-unreachable" in text
    assert "hunter2" not in text
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    capsys.readouterr()
    assert main(command) != 0  # it is never overwritten
    assert "file-exists" in capsys.readouterr().err


def a_check(group: str) -> Check:
    none = Text("-", "-")
    return Check("some", group, "warning", none, none, "", lambda _: None)


def test_what_could_not_be_examined_has_failed() -> None:
    def raises() -> object:
        raise FileError("missing-file", "x", "")

    hung = threading.Event()
    checks = [a_check("raises"), a_check("hangs"), a_check("well")]
    probes = {"raises": raises, "hangs": lambda: hung.wait(30), "well": lambda: None}
    found = examine(checks, probes, 0.2)
    hung.set()
    assert [one.status for one in found] == ["failed", "failed", "ok"]
    assert found[0].detail.en == "missing-file"
    assert exit_status(found) == 1
    told = tell(found, "en")
    assert "failed: 2" in told
    assert "1 checks could not be made: missing-file" in told


def test_codes_are_unique_and_every_text_has_both_languages() -> None:
    assert len({check.code for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.title.en != check.title.fr
        assert check.remedy.en != check.remedy.fr
        assert check.fault


def test_a_coordinator_that_hangs_up_on_an_ended_certificate_is_examined_all_the_same(
    patient: Patient, capsys: Words
) -> None:
    FAULTS["certificate-ended"](patient)
    assert main(["doctor", "--json", "--config", str(patient.file)]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert all(one["is_examined"] for one in checks)
    found = {one["code"] for one in checks if one["status"] == "failed"}
    assert {"certificate-ended", "coordinator-closed"} <= found


def test_a_node_that_starts_logs_what_the_quick_checks_find(
    patient: Patient, caplog: pytest.LogCaptureFixture
) -> None:
    FAULTS["certificate-ended"](patient)
    logger = logging.getLogger("larrey_client.doctor")
    found = look_at_start(load_settings(patient.file), time.time())
    assert {one.check.group for one in found} == {"certificates", "state", "data"}
    log_findings(found, logger)
    assert "doctor=certificate-ended level=failed: first: ended" in caplog.text
    assert "key-open" not in caplog.text
