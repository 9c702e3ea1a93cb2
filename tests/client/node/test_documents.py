"""What was signed and counts here is kept, once, and never changes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from larrey_client.store import SiteStore
from larrey_protocol.errors import FileError, IntegrityError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person, require_right, require_separate
from larrey_protocol.roster import Roster, Seat, open_under
from larrey_protocol.signed import sign


def test_a_document_is_kept_once_and_found_by_kind_and_subject(tmp_path: Path) -> None:
    store, key = SiteStore.open(tmp_path / "state", lambda: 1.0), SigningKey.generate()
    rosters = [sign(Roster(version=n, issued_at=0.0), key) for n in (2, 1)]
    with store.transaction():
        kept = [
            store.add_document(signed, number=n) for signed, n in zip(rosters, (2, 1), strict=True)
        ]
        again = store.add_document(rosters[0], number=2)
    assert (kept, again) == ([True, True], False)
    assert store.records.documents("roster") == [rosters[1], rosters[0]]
    assert store.records.documents("roster", "other") == []
    store.close()


def test_a_kept_document_cannot_be_changed(tmp_path: Path) -> None:
    store = SiteStore.open(tmp_path / "state", lambda: 1.0)
    with store.transaction():
        store.add_document(sign(Roster(version=1, issued_at=0.0), SigningKey.generate()))
    for change in ("UPDATE documents SET number = 9", "DELETE FROM documents"):
        with pytest.raises(sqlite3.IntegrityError, match="appends only"):
            store.records.connection.execute(change)
    store.close()


def test_only_the_consortium_or_a_person_of_its_roster_signs_under_it() -> None:
    consortium, lead, auditor, stranger = (SigningKey.generate() for _ in range(4))
    people = (
        Person(name="ada", role="lead", key=lead.public),
        Person(name="bea", role="auditor", key=auditor.public),
    )
    roster = Roster(version=1, issued_at=0.0, people=people)
    document = Seat(name="alpha", key=stranger.public)

    def opened(by: SigningKey) -> Seat:
        return open_under(
            sign(document, by), Seat, "propose", consortium=consortium.public, roster=roster
        )

    assert opened(consortium) == opened(lead) == document
    with pytest.raises(Refusal) as refused:
        opened(auditor)
    assert refused.value.code == "role-not-allowed"
    with pytest.raises(IntegrityError) as unknown:
        opened(stranger)
    assert unknown.value.code == "wrong-signer"


def test_a_right_that_is_listed_nowhere_is_nobodys() -> None:
    key = SigningKey.generate().public
    for role in ("lead", "member", "it", "dpo", "operator", "auditor"):
        people = [Person(name="ada", role=role, key=key)]
        with pytest.raises(Refusal) as refused:
            require_right(people, key, "open-the-vault")
        assert refused.value.code == "role-not-allowed"


@pytest.mark.parametrize(
    "duties", [(["a"], ["a"], []), (["a"], ["b"], ["a"]), (["a"], ["b", "c"], ["c"])]
)
def test_launch_approval_and_release_are_never_one_person(duties: tuple[list[str], ...]) -> None:
    require_separate(["a"], ["b"], ["c"])
    with pytest.raises(Refusal) as refused:
        require_separate(*duties)
    assert refused.value.code == "duties-not-separate"


def test_a_persons_key_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    key, path = SigningKey.generate(), tmp_path / "dpo.key"
    key.save(path, b"a long enough one")
    assert b"ENCRYPTED" in path.read_bytes()
    assert SigningKey.load(path, b"a long enough one").public == key.public
    for passphrase, code in ((None, "passphrase-needed"), (b"another one", "passphrase-wrong")):
        with pytest.raises(FileError) as refused:
            SigningKey.load(path, passphrase)
        assert refused.value.code == code
