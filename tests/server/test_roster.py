"""Rosters and the consortium's key at the coordinator: only growing versions, only its own key."""

from __future__ import annotations

from pathlib import Path

import pytest

from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.roster import EMPTY, KeyChange, Roster, Seat
from larrey_protocol.signed import Signed, sign
from larrey_protocol.tomlfile import parse_toml
from larrey_server.cli import main
from larrey_server.journal import Journal
from larrey_server.lawbook import LawBook
from larrey_server.settings import OperatorConsortium, OperatorPerson, load_operator
from larrey_server.vouching import RosterFile, draft, newest, next_roster
from tests.protocol.permits import ADA, CONSORTIUM, roster
from tests.protocol.samples import study
from tests.server.peers import Federation

NEW = SigningKey.generate()


def change(old: SigningKey = CONSORTIUM, new: SigningKey = NEW) -> Signed:
    return sign(KeyChange(old=old.public, new=new.public, at=0.0), old)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "j.db")


@pytest.fixture
def law(journal: Journal) -> LawBook:
    return LawBook(journal, CONSORTIUM.public, lambda: 0.0)


def test_before_the_first_roster_nobody_is_vouched_for(law: LawBook) -> None:
    assert law.roster() is EMPTY


@pytest.mark.parametrize("version", [1, 2])
def test_versions_only_grow(law: LawBook, version: int) -> None:
    law.take_roster(sign(roster(version=2), CONSORTIUM))
    with pytest.raises(Refusal, match="roster-stale"):
        law.take_roster(sign(roster(version=version), CONSORTIUM))
    assert law.roster().version == 2


def test_the_same_roster_again_changes_nothing(law: LawBook, journal: Journal) -> None:
    signed = sign(roster(), CONSORTIUM)
    assert law.take_roster(signed)
    head = journal.head()
    assert not law.take_roster(signed)
    assert journal.head() == head


def test_a_lead_cannot_sign_a_roster(law: LawBook) -> None:
    law.take_roster(sign(roster(), CONSORTIUM))
    with pytest.raises(IntegrityError, match="wrong-signer"):
        law.take_roster(sign(roster(version=2), ADA))


def test_the_key_is_changed_by_the_key_before_and_followed_after_a_restart(
    law: LawBook, journal: Journal
) -> None:
    law.take_roster(sign(roster(), CONSORTIUM))
    law.take_roster(change())
    with pytest.raises(IntegrityError, match="wrong-signer"):
        law.take_roster(sign(roster(version=2), CONSORTIUM))
    latest = roster(version=2)
    law.take_roster(sign(latest, NEW))
    for anchor in (CONSORTIUM.public, NEW.public):
        again = LawBook(journal, anchor, lambda: 0.0)
        assert (again.consortium, again.roster()) == (NEW.public, latest)


@pytest.mark.parametrize("old", [ADA, SigningKey.generate()])
def test_nobody_else_changes_the_key(law: LawBook, old: SigningKey) -> None:
    law.take_roster(sign(roster(), CONSORTIUM))
    with pytest.raises(IntegrityError, match="wrong-signer"):
        law.take_roster(change(old=old))
    assert law.consortium == CONSORTIUM.public


def test_a_change_must_name_the_key_that_it_replaces(law: LawBook) -> None:
    lie = sign(KeyChange(old=ADA.public, new=NEW.public, at=0.0), CONSORTIUM)
    with pytest.raises(IntegrityError, match="wrong-signer"):
        law.take_roster(lie)


def test_an_operator_follows_the_chain_from_its_own_pin() -> None:
    first, second = sign(roster(), CONSORTIUM), sign(roster(version=2), NEW)
    documents = [first, change(), second]
    assert newest(documents, CONSORTIUM.public)[0] == NEW.public
    assert newest(documents, CONSORTIUM.public)[1].version == 2
    assert newest(documents, NEW.public)[1].version == 2
    assert newest([], NEW.public) == (NEW.public, EMPTY)
    with pytest.raises(IntegrityError, match="consortium-unknown"):
        newest(documents, ADA.public)


def test_an_operator_believes_no_roster_under_another_key() -> None:
    forged = sign(roster(("alpha", "sybil"), version=9), SigningKey.generate())
    _, found = newest([sign(roster(), CONSORTIUM), forged], CONSORTIUM.public)
    assert found.version == 1


def test_a_draft_marks_what_the_coordinator_alone_says() -> None:
    present = roster()
    stranger = Seat(name="gamma", key=SigningKey.generate().public)
    text = draft([*present.sites, stranger], present)
    marked = [line for line in text.splitlines() if "NEW" in line]
    assert [line.split()[1] for line in marked] == ["gamma"]
    file = parse_toml(text, RosterFile, "roster.toml")
    assert (file.sites, file.people) == ((*present.sites, stranger), present.people)


def test_a_file_without_a_version_becomes_the_next_one() -> None:
    file = RosterFile(sites=roster().sites)
    assert next_roster(file, roster(version=4), 1.0) == Roster(
        version=5, issued_at=1.0, sites=file.sites
    )
    assert next_roster(file.model_copy(update={"version": 9}), roster(), 1.0).version == 9


def test_a_site_off_the_roster_cannot_be_invited(federation: Federation) -> None:
    shorter = federation.folder.roster(version=2).model_copy(
        update={"sites": federation.folder.roster().sites[:1]}
    )
    signed = sign(shorter, federation.folder.consortium)
    federation.hub.coordinator.take_roster(signed)
    with federation.operator() as operator, pytest.raises(Refusal, match="site-not-on-roster"):
        operator.propose(study())


def test_an_exchanged_seat_needs_a_new_approval(federation: Federation) -> None:
    digest = federation.propose(study())
    with federation.site("alpha") as alpha:
        assert alpha.approve(digest).recorded
    old = federation.folder.roster()
    seats = (old.sites[0], old.sites[1].model_copy(update={"key": NEW.public}))
    exchanged = old.model_copy(update={"version": 2, "sites": seats})
    federation.hub.coordinator.take_roster(sign(exchanged, federation.folder.consortium))
    assert federation.hub.coordinator.book.answers(digest).outdated == ("alpha",)


def test_a_persons_key_is_made_behind_a_passphrase_and_printed_for_the_roster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, path = tmp_path / "passphrase", tmp_path / "ada.key"
    secret.write_text("a long enough passphrase")
    secret.chmod(0o600)
    monkeypatch.setenv("LARREY_PASSPHRASE_FILE", str(secret))
    assert main(["person", "new", "ada", "--role", "lead", "--out", str(path)]) == 0
    (person,) = parse_toml(capsys.readouterr().out, RosterFile, "roster.toml").people
    key = SigningKey.load(path, b"a long enough passphrase")
    assert (person.name, person.role, person.key) == ("ada", "lead", key.public)
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["person", "new", "ada", "--role", "lead", "--out", str(path)]) == 2


def test_a_roster_is_drafted_signed_and_shown_and_the_key_rotated(
    federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    operator = federation.folder.operator_file(tmp_path / "operator.toml", federation.hub.address)
    law, words = federation.hub.coordinator.book.law, ["--operator", str(operator)]
    assert main(["roster", "draft", *words]) == 0
    file = tmp_path / "roster.toml"
    file.write_text(capsys.readouterr().out)
    assert main(["roster", "sign", str(file), *words]) == 0
    assert law.roster().version == 2
    assert law.roster().sites == federation.folder.roster().sites
    assert main(["roster", "show", *words]) == 0
    assert "ada" in capsys.readouterr().out
    secret = tmp_path / "passphrase"
    secret.write_text("a long enough passphrase")
    secret.chmod(0o600)
    monkeypatch.setenv("LARREY_PASSPHRASE_FILE", str(secret))
    path = tmp_path / "new.key"
    assert main(["consortium", "rotate", "--new-key", str(path), *words]) == 0
    assert law.consortium == SigningKey.load(path, b"a long enough passphrase").public
    assert law.roster().version == 3


def test_a_roster_is_signed_where_the_key_lies_and_sent_from_elsewhere(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = federation.folder.operator_file(tmp_path / "operator.toml", federation.hub.address)
    file, signed = tmp_path / "roster.toml", tmp_path / "roster.signed"
    assert main(["roster", "draft", "--operator", str(operator)]) == 0
    file.write_text(capsys.readouterr().out)
    key = str(federation.folder.path / "consortium.pem")
    words = ["roster", "sign", str(file), "--key", key, "--out", str(signed)]
    assert main(words) == 0
    assert main(words) == 2  # never overwritten
    assert main(["roster", "send", str(signed), "--operator", str(operator)]) == 0
    assert federation.hub.coordinator.book.roster().version == 2
    assert main(["roster", "sign", str(file), "--out", str(tmp_path / "other")]) == 2


def test_a_person_gets_an_operator_file_that_works(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("long enough to be one")
    secret.chmod(0o600)
    monkeypatch.setenv("LARREY_PASSPHRASE_FILE", str(secret))
    present = federation.folder.operator_file(tmp_path / "operator.toml", federation.hub.address)
    own, key = tmp_path / "eve.toml", tmp_path / "eve.key"
    words = ["person", "new", "eve", "--role", "lead", "--operator", str(present)]
    words += ["--out", str(key), "--operator-file", str(own)]
    assert main(words) == 0
    settings = load_operator(own)
    assert settings.person == OperatorPerson(name="eve", key=key)
    assert settings.consortium == OperatorConsortium(key=federation.folder.consortium.public)
    assert 'key = "eve.key"' in own.read_text()
    assert main(["study", "list", "--operator", str(own)]) == 0
    key.unlink()
    assert main(words) == 2  # never over a file
    assert not key.exists()
