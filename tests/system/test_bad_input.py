"""Wrong input gets a sentence, a stable code and a next step, and leaves nothing half-written."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from larrey_lab.federation.processes import run_command
from larrey_protocol.study import Study
from tests.system.hospitals import (
    HELD,
    PRIVATE,
    PRIVATE_TRAINING,
    SITES,
    Hospitals,
    make_study,
    table,
    until,
)

pytestmark = pytest.mark.system

SPOILED = {
    "data-missing": None,
    "data-empty": "",
    "column-missing": table(0).replace("x1", "x2"),
    "value-out-of-range": table(0) + "new,1,7.5,0.5\n",
    "too-few-units": table(0, patients=5),
}


def said(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the code of a refused command that said what to do next and printed no data."""
    assert done.stdout == ""
    assert done.returncode == status, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    found = re.fullmatch(r"[a-z-]+: .{15,} \[([a-z-]+)\] [A-Z].{5,}", last)
    assert found, last
    return found[1]


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def write(study: Study, folder: Path, old: str, new: str) -> Path:
    """Write a study's files with one text replaced."""
    dump = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = tomli_w.dumps(dump["file"])
    assert old in text
    (folder / "study.toml").write_text(text.replace(old, new))
    (folder / "contract.toml").write_text(tomli_w.dumps(dump["contract"]))
    return folder / "study.toml"


@pytest.mark.parametrize(
    ("old", "new", "code", "status"),
    [
        ("quorum", "kworum", "unknown-key", 2),
        ("epsilon = 1.0", "epsilon = 0.1", "epsilon-impossible", 1),
        ('name = "logistic"', 'name = "oracle"', "invalid-file", 2),
    ],
)
def test_a_wrong_study_is_not_proposed(
    hospitals: Hospitals, tmp_path: Path, old: str, new: str, code: str, status: int
) -> None:
    study = make_study("wrong", training=PRIVATE_TRAINING, privacy=PRIVATE)
    file = write(study, tmp_path, old, new)
    operator = str(hospitals.federation.workspace.operator)
    done = run_command("larrey", "study", "propose", str(file), "--operator", operator)
    assert said(done, status) == code
    with hospitals.operator() as online:
        assert "wrong" not in {facts["name"] for facts in online.list()}


@pytest.fixture
def undecided(hospitals: Hospitals) -> str:
    """Return the digest of a study that waits for a decision at every site."""
    return hospitals.propose(make_study("undecided"), approve=False)


@pytest.fixture
def repaired(hospitals: Hospitals, tmp_path: Path) -> Iterator[Hospitals]:
    """Put every site's data back afterwards."""
    for site in SITES:
        shutil.copyfile(hospitals.data(site), tmp_path / site)
    yield hospitals
    for site in SITES:
        shutil.copyfile(tmp_path / site, hospitals.data(site))


def spoil(hospitals: Hospitals, site: str, content: str | None) -> None:
    if content is None:
        hospitals.data(site).unlink()
    else:
        hospitals.data(site).write_text(content)


@pytest.mark.parametrize("code", SPOILED)
def test_a_study_is_not_approved_on_data_that_break_its_contract(
    repaired: Hospitals, undecided: str, code: str
) -> None:
    spoil(repaired, "alpha", SPOILED[code])
    config = str(repaired.config("alpha"))
    officer = ("--key", repaired.officer("alpha"))
    done = run_command("larrey-site", "study", "approve", undecided, *officer, "--config", config)
    assert said(done, 1) == code
    views = {view["digest"]: view["state"] for view in repaired.ask("alpha", "study list")}
    assert views[undecided] == "waiting"
    assert repaired.rounds_used("alpha", undecided) == 0


def test_data_that_break_after_approval_are_a_code_to_others_and_a_reason_at_the_site(
    repaired: Hospitals,
) -> None:
    digest = repaired.propose(make_study("spoiled", training=HELD | {"spare_rounds": 0}))
    codes = dict(zip(SITES, SPOILED, strict=False))
    for site, code in codes.items():
        spoil(repaired, site, SPOILED[code])
    with repaired.operator() as operator:
        operator.launch(digest)
        until(lambda: repaired.status(digest).get("stop_code") == "below-quorum", 60)
        operator.command(digest, "close")
    certificate = repaired.finish(digest)
    assert (certificate.outcome, certificate.rounds_applied) == ("FAILED", 0)
    assert {cell.code for cell in certificate.matrix} == {"site-not-ready"}
    for site, code in codes.items():
        assert repaired.rounds_used(site, digest) == 0
        told = [record["code"] for record in repaired.audit(site) if record["study"] == digest]
        assert [word for word in told if word not in {"", "closed-by-order"}] == [code]
        assert f"[{code}]" in repaired.federation.log(site).read_text()


def test_a_second_coordinator_on_a_busy_port_changes_nothing(hospitals: Hospitals) -> None:
    config = hospitals.federation.workspace.coordinator
    before = set(files(config.parent))
    assert said(run_command("larrey", "serve", "--config", str(config)), 2) == "port-busy"
    assert set(files(config.parent)) == before


def test_a_second_node_on_the_same_state_leaves_the_first_alone(hospitals: Hospitals) -> None:
    done = run_command("larrey-site", "run", "--config", str(hospitals.config("alpha")))
    assert said(done, 2) == "state-locked"
    assert hospitals.ask("alpha", "status")["is_connected"]


@pytest.mark.parametrize(
    ("credential", "code"),
    [("alpha", "not-an-operator"), ("stranger", "coordinator-unreachable")],
)
def test_a_wrong_operator_certificate_is_refused(
    hospitals: Hospitals, tmp_path: Path, credential: str, code: str
) -> None:
    operator = hospitals.federation.workspace.operator
    settings = tomllib.loads(operator.read_text())
    home = hospitals.config("alpha").parent if credential == "alpha" else stranger(tmp_path)
    identity = {"certificate": str(home / "tls.crt"), "key": str(home / "tls.key")}
    coordinator = settings["coordinator"] | {"authority": str(operator.parent / "ca.crt")}
    wrong = tmp_path / "operator.toml"
    wrong.write_text(tomli_w.dumps({"coordinator": coordinator, "identity": identity}))
    done = run_command("larrey", "study", "list", "--operator", str(wrong))
    assert said(done, 1) == code


def stranger(folder: Path) -> Path:
    """Return a folder with a certificate of another authority."""
    import datetime as dt

    from larrey_protocol.certificates import issue_client, make_authority
    from larrey_protocol.keys import write_private

    now = dt.datetime.now(dt.UTC)
    credential = issue_client(make_authority("another", now=now), "operator", now=now)
    (folder / "tls.crt").write_bytes(credential.certificate)
    write_private(folder / "tls.key", credential.key)
    return folder


@pytest.mark.parametrize("verb", ["approve", "refuse", "show"])
def test_an_unknown_study_is_named(hospitals: Hospitals, verb: str) -> None:
    config = str(hospitals.config("alpha"))
    officer = () if verb == "show" else ("--key", hospitals.officer("alpha"))
    done = run_command("larrey-site", "study", verb, "nosuch", *officer, "--config", config)
    assert said(done, 2) == "study-unknown"
    assert "nosuch" in done.stderr
