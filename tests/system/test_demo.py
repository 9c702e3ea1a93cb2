"""`larrey demo` as a newcomer runs it: once to the end, once interrupted."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from larrey_lab.demo.folder import fresh_folder
from larrey_lab.heart import read_heart
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Certificate, Signed, open_signed
from larrey_protocol.study import load_study
from tests.system.hospitals import descendants, is_alive, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
_LARREY = str(Path(sys.executable).parent / "larrey")


@dataclass(frozen=True)
class Demo:
    """A demonstration that ended."""

    folder: Path
    status: int
    stdout: str

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.stdout)
        return facts


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Return the one run of the demo; test workers share it."""
    base = tmp_path_factory.getbasetemp()
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out, printed = place / "demo", place / "demo.json"
    with (place / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            command = [_LARREY, "demo", "--json", "--splits", "2", "--out", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            printed.write_text(json.dumps([done.returncode, done.stdout]))
    return Demo(out / "heart", *json.loads(printed.read_text()))


def test_the_demo_prints_one_document_and_nothing_else(demo: Demo) -> None:
    assert demo.status == 0
    assert demo.facts["outcome"] == "COMPLETE"
    assert demo.facts == json.loads((demo.folder / "facts.json").read_text())


def test_the_demo_shows_a_refusal_that_costs_nothing(demo: Demo) -> None:
    refusal = demo.facts["refusal"]
    assert (refusal["code"], refusal["epsilon_spent"]) == ("noise-below-minimum", 0)


def test_the_demo_spends_no_more_than_the_study_claims(demo: Demo) -> None:
    claimed = demo.facts["epsilon"]
    for hospital in demo.facts["hospitals"]:
        assert 0 < hospital["epsilon_by_round"][-1] <= claimed
        assert hospital["is_verified"]


def test_the_demo_leaves_a_certified_model_that_opens(demo: Demo) -> None:
    tensors = load_file(demo.folder / "model.safetensors")
    study = load_study(demo.folder / "study.toml")
    assert sum(array.size for array in tensors.values()) == 31
    key = SigningKey.load(demo.folder / "coordinator" / "signing.ed25519").public
    signed = Signed.from_bytes((demo.folder / "certificate.json").read_bytes())
    certificate = open_signed(signed, Certificate, key)
    assert certificate.study == study.digest == demo.facts["digest"]
    model = (demo.folder / "model.safetensors").read_bytes()
    assert certificate.model == digest_bytes(model)


def test_the_demos_report_needs_nothing_from_elsewhere(demo: Demo) -> None:
    html = (demo.folder / "report.html").read_text()
    loaded = re.findall(r"""(?:src|href|url|import)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert [link for link in loaded if not link.startswith(("#", "data:"))] == []
    assert "<script" not in html
    assert html.count("<svg") + html.count("data:image") >= 3


def test_each_site_folder_holds_only_its_own_rows(demo: Demo) -> None:
    tables = read_heart()
    for site, hospital in tables.sites.items():
        (data,) = (demo.folder / "sites" / site).rglob("*.csv")
        rows = list(csv.DictReader(data.read_text().splitlines()))
        assert all(row in hospital for row in rows)
        assert 0 < len(rows) < len(hospital)  # the rest was held out


def test_the_demo_leaves_no_process_behind(demo: Demo) -> None:
    folder = os.fsencode(demo.folder)
    commands = [p / "cmdline" for p in Path("/proc").iterdir() if p.name.isdigit()]
    assert not [c for c in commands if c.exists() and folder in c.read_bytes()]


def test_an_interrupted_demo_ends_everything_and_can_start_again(tmp_path: Path) -> None:
    # Where the suite itself runs in a shell's background, SIGINT is ignored and inherited so.
    command = ["env", "--default-signal=INT", _LARREY, "demo", "--out", str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    logs = tmp_path / "heart" / "logs"
    until(lambda: len([p for p in logs.glob("*.log") if b"ready" in p.read_bytes()]) == 5, 60)
    started = descendants(process.pid)
    assert len(started) >= 9  # coordinator and worker, four agents and their trainers
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    asked_at = time.monotonic()
    _, words = process.communicate(timeout=15)
    assert process.returncode == 130
    until(lambda: not any(map(is_alive, started)), 5)
    assert time.monotonic() - asked_at < 8
    assert b"Traceback" not in words
    assert list(fresh_folder(tmp_path / "heart").glob("[!.]*")) == []
