"""`larrey-site data` and `opposition` as a person and a script use them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from larrey_client.cli import main
from larrey_client.data.identity import patient_hash
from larrey_client.data.secret import site_secret
from larrey_client.records import Decision
from larrey_client.store import SiteStore
from larrey_protocol.contract import Exclusions
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Proposal, sign
from larrey_protocol.study import Study
from tests.client.training.conftest import CONTRACT

Run = Callable[..., tuple[int, str, str]]
KEY = SigningKey.generate()


@pytest.fixture
def folder(tmp_path: Path, table: Path) -> Path:
    """Return a site's folder with site.toml, a dataset and a contract; no node ever ran."""
    settings = {
        "site": {"name": "alpha", "metrics": ""},
        "coordinator": {"address": "localhost:1", "authority": "ca.crt"},
        "identity": {"certificate": "a.crt", "key": "a.key", "signing_key": "signing.pem"},
        "consortium": {"key": KEY.public},
        "datasets": [{"name": "toy", "path": table.name, "epsilon": 8.0, "delta": 1e-5}],
    }
    (tmp_path / "site.toml").write_text(tomli_w.dumps(settings), encoding="utf-8")
    (tmp_path / "contract.toml").write_text(tomli_w.dumps(CONTRACT), encoding="utf-8")
    return tmp_path


@pytest.fixture
def site(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a command and gives its status, stdout and stderr."""

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*words, "--config", str(folder / "site.toml")])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def _told(run: tuple[int, str, str]) -> Any:
    return json.loads(run[1])


def test_a_dataset_that_meets_a_contract_passes_every_rule(site: Run, folder: Path) -> None:
    status, text, _ = site("data", "check", str(folder / "contract.toml"))
    assert status == 0
    assert "meets the contract of toy 1.0.0" in text
    assert "FAIL" not in text
    assert "11-50 units" in text


def test_a_dataset_that_does_not_names_each_rule_and_no_value(
    site: Run, folder: Path, table: Path
) -> None:
    table.write_text(table.read_text() + "p77,777,none,maybe,x\n", encoding="utf-8")
    status, text, _ = site("data", "check", str(folder / "contract.toml"))
    assert status == 1
    assert "FAIL  value-out-of-range" in text
    assert "FAIL  label-unknown" in text
    assert "pass  rows-per-unit" in text
    assert not {"777", "maybe", "p77"} & set(text.replace(",", " ").split())


def test_the_last_check_is_listed_by_rule(site: Run, folder: Path, table: Path) -> None:
    assert _told(site("data", "list", "--json"))[0]["checks"] == {}
    site("data", "check", str(folder / "contract.toml"))
    assert "toy 1.0.0: meets it" in site("data", "list")[1]
    table.write_text("pid,age,cp,sick\na,1,none,0\n", encoding="utf-8")
    site("data", "check", str(folder / "contract.toml"))
    listed = _told(site("data", "list", "--json"))[0]
    assert listed["checks"]["toy 1.0.0"]["failed"] == ["too-few-units"]
    assert (listed["source"], listed["is_there"], listed["family"]) == ("file", True, "")
    assert "fails too-few-units" in site("data", "list")[1]


def test_a_dataset_or_study_that_is_not_there_is_named(site: Run, folder: Path) -> None:
    contract = str(folder / "contract.toml")
    assert site("data", "check", contract, "--dataset", "other")[0] == 2
    assert "no-state" in site("data", "check", "heart")[2]
    (folder / "cohort.csv").unlink()
    assert "data-missing" in site("data", "check", contract)[2]


def _propose(folder: Path, study: Study, *, is_approved: bool = False) -> None:
    store = SiteStore.open(folder / "state", lambda: 1.0)
    with store.transaction():
        store.add_proposal(study.digest, sign(Proposal(study=study, proposed_at=1.0), KEY))
        if is_approved:
            store.add_decision(Decision(study.digest, "approved", "toy", "", "x", 1.0, b"", 1.0))
    store.close()


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("round", "every round from that day on"),
        ("permit", "every later round"),  # no permit on record: today's objections count
        ("none", "nothing: this study's permit sets objections aside"),
    ],
)
def test_an_objection_says_what_it_changes_of_each_running_study(
    site: Run, folder: Path, make_study: Callable[..., Study], rule: str, changes: str
) -> None:
    study = make_study()
    contract = study.contract.model_copy(update={"exclusions": Exclusions(opposition=rule)})
    _propose(folder, Study(file=study.file, contract=contract), is_approved=True)
    told = _told(site("opposition", "add", "p1", "--json"))
    assert [(s["study"], s["as_of"], s["changes"]) for s in told["studies"]] == [
        ("toy", rule, changes)
    ]
    assert told["cannot_change"]


def test_a_proposed_study_is_checked_by_its_name(
    site: Run, folder: Path, make_study: Callable[..., Study]
) -> None:
    _propose(folder, make_study())
    assert _told(site("data", "check", "toy", "--json"))["is_met"]


def test_who_objects_is_left_out_of_a_check_and_nowhere_named(
    site: Run, folder: Path, table: Path
) -> None:
    table.write_text(table.read_text() + "p77,777,none,1,x\n", encoding="utf-8")
    contract = str(folder / "contract.toml")
    assert site("data", "check", contract)[0] == 1
    (folder / "objections.txt").write_text("p77\n\n p77 \np99\n", encoding="utf-8")
    status, text, errors = site("opposition", "add", "--file", str(folder / "objections.txt"))
    assert (status, errors) == (0, "")
    assert "Recorded: 2 patients" in text
    assert "already released" in text
    assert "p77" not in text
    assert _told(site("data", "check", contract, "--json"))["counts"]["excluded"] == "1-10"
    assert site("data", "check", contract)[0] == 0
    state = b"".join(p.read_bytes() for p in (folder / "state").iterdir() if p.is_file())
    assert b"p77" not in state
    assert patient_hash("p77", site_secret(folder / "state")) in state


def test_objections_are_counted_checked_and_withdrawn(
    site: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    site("opposition", "add", "p1", "p2")
    assert _told(site("opposition", "count", "--json")) == {"objecting": 2, "entries": 2}
    assert _told(site("opposition", "check", "p1", "p3", "--json")) == {"asked": 2, "objecting": 1}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"p1\n")))
    assert "1 patients object no longer" in site("opposition", "withdraw", "--file", "-")[1]
    assert _told(site("opposition", "count", "--json")) == {"objecting": 1, "entries": 3}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["add"], "identifiers-missing"),
        (["add", " "], "identifiers-missing"),
        (["add", "x" * 300], "identifier-too-long"),
        (["add", "--file", "/nowhere/at/all"], "missing-file"),
    ],
)
def test_a_list_without_identifiers_is_refused(site: Run, words: list[str], code: str) -> None:
    status, _, text = site("opposition", *words)
    assert status == 2
    assert code in text
    assert "x" * 20 not in text
