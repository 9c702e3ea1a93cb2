"""`larrey-site ledger` and the officer's commands, as a person and a script use them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from larrey_client.cli import main
from larrey_client.dossier import read_dossier
from larrey_client.families import family_of
from larrey_client.officer import Officer
from larrey_client.settings import load_settings
from larrey_client.store import SiteStore
from larrey_privacy.mechanism import UNBOUNDED
from larrey_protocol.canonical import short
from larrey_protocol.decisions import SiteOrder
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Proposal, sign
from tests.client.ledger.conftest import COST, FILTER, ROUND, State, make_officer, sign_charter
from tests.client.ledger.test_families import add
from tests.protocol.samples import study as make_study

SITE_TOML = """
[site]
name = "alpha"
metrics = ""
[coordinator]
address = "localhost:1"
authority = "ca.crt"
[identity]
certificate = "site.crt"
key = "site.key"
signing_key = "signing.pem"
[consortium]
key = "{consortium}"
[[datasets]]
name = "heart"
path = "heart.csv"
unit = "patient_id"
[[datasets]]
name = "lung"
path = "lung.csv"
[[people]]
name = "{officer.person.name}"
role = "dpo"
key = "{officer.person.key}"
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(state: State, dpo: Officer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs a command on the state and gives its status, stdout and stderr."""
    consortium = SigningKey.generate().public
    (tmp_path / "site.toml").write_text(SITE_TOML.format(consortium=consortium, officer=dpo))
    state.key.save(tmp_path / "signing.pem")
    dpo.key.save(tmp_path / "dpo.key")

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        state.store.close()
        status = main([*words, "--config", str(tmp_path / "site.toml")])
        state.store = SiteStore.open(state.folder, lambda: 12.0, is_adopting=True)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def key(tmp_path: Path) -> str:
    return str(tmp_path / "dpo.key")


def test_the_ledger_is_shown_by_study_and_round(state: State, site: Command) -> None:
    state.work(3)
    heart, lung = json.loads(site("ledger", "--json")[1])
    (study,) = heart["studies"]
    assert [one["round"] for one in study["rounds"]] == [1, 2, 3]
    assert {one["state"] for one in study["rounds"]} == {"answered"}
    assert study["rounds_left"] == 7
    assert study["rounds_more"] == (FILTER.capacity_units - 10 * COST) // COST
    assert heart["used_share"] == pytest.approx(sum(one["share"] for one in study["rounds"]))
    assert (lung["dataset"], lung["studies"], lung["free_share"]) == ("lung", [], 1.0)


def test_the_table_adds_up_to_one_a_family(state: State, site: Command) -> None:
    state.work(2)
    rows = list(csv.DictReader(io.StringIO(site("ledger", "--csv")[1])))
    for family in ("heart", "lung"):
        shares = [float(row["share"]) for row in rows if row["family"] == family]
        assert sum(shares) == pytest.approx(1.0)
    assert [row["round"] for row in rows if row["state"] == "answered"] == ["1", "2"]


def test_the_words_name_unit_neighbours_delta_and_what_is_left(state: State, site: Command) -> None:
    state.work(3)
    text = site("ledger")[1]
    for words in ("epsilon 8 at delta 1e-05 per patient", "add/remove", "3 of 10 rounds, 7 left",
                  "more such rounds"):  # fmt: skip
        assert words in text


def test_datasets_that_share_a_family_are_shown_as_one(
    state: State, site: Command, dpo: Officer
) -> None:
    add(state, dpo, "heart", 1, 2)
    add(state, dpo, "lung", 2)
    (view,) = json.loads(site("ledger", "--json")[1])
    assert view["datasets"] == ["heart", "lung"]
    assert "shared by heart, lung" in site("ledger")[1]


def test_what_later_claims_carry_is_said(state: State, site: Command, key: str) -> None:
    with state.store.transaction():
        state.store.ledger.hold("heart", "sha256:plain", UNBOUNDED, 2, spare_rounds=0)
    assert site("ledger", "reset", "heart", "--key", key)[0] == 0
    text = site("ledger")[1]
    for words in ("no epsilon at all", "renewed 1 times", "without differential privacy"):
        assert words in text
    assert json.loads(site("ledger", "--json")[1])[0]["flags"] == ["unbounded", "family-reset"]


def test_the_officer_adopts_what_a_file_of_anchors_says(
    state: State, site: Command, key: str, tmp_path: Path
) -> None:
    state.save()
    state.work(4)
    lines = [b"torn", state.anchor().signed.to_bytes()]
    (tmp_path / "anchors.log").write_bytes(b"\n".join(lines))
    state.restore()
    words = ("ledger", "adopt", "--anchor", str(tmp_path / "anchors.log"), "--key", key, "--json")
    status, out, _ = site(*words)
    assert (status, json.loads(out)["families"]) == (0, ["heart"])
    assert state.store.ledger.spent() == {"heart": 4 * COST}
    assert "lost" in site("ledger")[1]
    assert json.loads(site(*words)[1])["error"]["code"] == "nothing-to-adopt"


def test_the_officer_splits_a_family(state: State, site: Command, key: str, dpo: Officer) -> None:
    add(state, dpo, "heart", 1, 2)
    add(state, dpo, "lung", 2)
    assert site("ledger", "split", "lung", "--into", "lung", "--key", key)[0] == 0
    assert family_of(state.store, "lung") == "lung"


def test_a_key_of_nobody_here_changes_nothing(state: State, site: Command, tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "stranger.key")
    head = state.store.ledger_head
    status, _, told = site("ledger", "reset", "heart", "--key", str(tmp_path / "stranger.key"))
    assert (status, "person-unknown" in told) == (1, True)
    assert state.store.ledger_head == head


def test_people_written_into_the_file_do_not_open_the_way_out(
    state: State, site: Command, tmp_path: Path, dpo: Officer
) -> None:
    path = tmp_path / "site.toml"
    sign_charter(state.store, load_settings(path), dpo)
    thief = make_officer("t.hief")
    thief.key.save(tmp_path / "thief.key")
    listed = path.read_text().replace(dpo.person.key, thief.person.key)
    path.write_text(listed.replace(dpo.person.name, thief.person.name))
    head = state.store.ledger_head
    status, _, told = site("ledger", "reset", "heart", "--key", str(tmp_path / "thief.key"))
    assert (status, "person-unknown" in told) == (1, True)
    assert state.store.ledger_head == head


def test_a_budget_freed_in_the_ledger_without_the_officer_s_order_is_found(
    state: State, site: Command, key: str, tmp_path: Path, dpo: Officer
) -> None:
    def altered() -> str:
        return read_dossier(state.store.records, settings.consortium.key).altered

    settings = load_settings(tmp_path / "site.toml")
    sign_charter(state.store, settings, dpo)
    assert site("ledger", "reset", "heart", "--key", key)[0] == 0
    assert altered() == ""
    (used,) = state.store.records.documents("siteorder")
    for document in ("sha256:" + "0" * 64, used.digest):  # an order counts once
        backup = Path(f"{state.folder}.old")
        shutil.rmtree(backup, ignore_errors=True)
        state.save()
        with state.store.transaction():
            state.store.ledger.reset("heart", document)
        assert "order" in altered()
        state.restore()


@pytest.mark.parametrize("changes", [{"verb": "resume"}, {"site": "beta"}, {"by": "it"}])
def test_an_order_of_another_kind_site_or_role_frees_no_budget(
    state: State, tmp_path: Path, site: Command, dpo: Officer, changes: dict[str, str]
) -> None:
    it = make_officer("i.t", "it")
    path = tmp_path / "site.toml"
    entry = f'[[people]]\nname = "i.t"\nrole = "it"\nkey = "{it.person.key}"\n'
    path.write_text(path.read_text() + entry)
    settings = load_settings(path)
    sign_charter(state.store, settings, dpo)
    signer = it if changes.pop("by", "") else dpo
    fields = {"site": "alpha", "verb": "split-family", "subject": "heart", "at": 1.0}
    fields |= {"after": state.store.audit_head, "person": signer.person.name} | changes
    signed = sign(SiteOrder.model_validate(fields), signer.key)
    with state.store.transaction():
        state.store.add_document(signed)
        state.store.ledger.reset("heart", signed.digest)
    assert "order" in read_dossier(state.store.records, settings.consortium.key).altered


def test_the_way_out_is_closed_where_a_signed_document_was_altered(
    state: State, site: Command, key: str, tmp_path: Path, dpo: Officer
) -> None:
    sign_charter(state.store, load_settings(tmp_path / "site.toml"), dpo)
    state.store.records.connection.executescript(
        "DROP TRIGGER IF EXISTS documents_no_delete; DELETE FROM documents"
    )
    status, _, told = site("ledger", "reset", "heart", "--key", key)
    assert (status, "document-altered" in told) == (1, True)


def test_a_running_node_is_not_overruled(
    state: State, site: Command, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ledger", "reset", "heart", "--key", key, "--config", str(tmp_path / "site.toml")]
    assert main(words) == 2  # the fixture's store is open
    assert "state-locked" in capsys.readouterr().err


def test_versions_of_one_study_are_told_apart_and_only_a_running_one_is_offered_rounds(
    state: State, site: Command
) -> None:
    versions = [make_study(study__version=number) for number in (1, 2)]
    with state.store.transaction():
        for study in versions:
            signed = sign(Proposal(study=study, proposed_at=1.0), state.key)
            state.store.add_proposal(study.digest, signed)
            state.store.ledger.hold("heart", study.digest, ROUND, 1, spare_rounds=0)
        state.store.ledger.release("heart", versions[0].digest)
    first, second = (
        line
        for line in site("ledger")[1].splitlines()
        if any(short(study.digest) in line for study in versions)
    )
    assert "tiny version 1 (" in first
    assert "ended" in first
    assert "more such rounds" not in first
    assert "tiny version 2 (" in second
    assert "more such rounds" in second
    studies = json.loads(site("ledger", "--json")[1])[0]["studies"]
    told = {one["study"]: (one["version"], one["rounds_more"]) for one in studies}
    assert told[versions[0].digest] == (1, None)
    assert told[versions[1].digest][0] == 2
    table = csv.DictReader(io.StringIO(site("ledger", "--csv")[1]))
    assert {row["version"] for row in table if row["name"] == "tiny"} == {"1", "2"}


def test_the_words_say_once_a_family_what_a_share_is(state: State, site: Command) -> None:
    text = site("ledger")[1]
    assert text.count("shares are of the filter that decides") == 2
