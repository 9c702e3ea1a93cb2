"""What a hospital's people signed is what protects it; the file alone loosens nothing."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from larrey_client.charter import charter_of, effective, next_version, people_ever
from larrey_client.cli import main
from larrey_client.dossier import read_dossier
from larrey_client.egress_log import EgressLog, Sent, open_log
from larrey_client.logs import open_logs
from larrey_client.run import open_node
from larrey_client.settings import Consortium, SiteSettings, load_settings
from larrey_client.signing import sign_policy
from larrey_client.store import SiteStore
from larrey_client.witness_settings import Witness
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.passphrase import PASSPHRASE_FILE
from larrey_protocol.people import Person
from larrey_protocol.signed import Proposal, sign
from tests.client.node.conftest import Pki
from tests.client.node.peer import Peer
from tests.client.node.people import People
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def unsigned(site_file: Path) -> SiteSettings:
    return load_settings(site_file)


@pytest.fixture
def store(unsigned: SiteSettings) -> Iterator[SiteStore]:
    opened = SiteStore.open(unsigned.site.state, lambda: 1.0)
    yield opened
    opened.close()


@pytest.fixture
def site(site_file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*words, "--config", str(site_file)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


def is_in_effect(store: SiteStore, settings: SiteSettings) -> bool:
    dossier = read_dossier(store.records, settings.consortium.key)
    return dossier.is_charter(charter_of(settings).digest)


def signed(store: SiteStore, settings: SiteSettings, people: People, key: SigningKey) -> list[str]:
    return list(sign_policy(store, settings, people.policy_word(store, settings, key)))


def with_people(settings: SiteSettings, people: People) -> SiteSettings:
    listed = (
        Person(name="ines", role="it", key=people.it.public),
        Person(name="dora", role="dpo", key=people.dpo.public),
    )
    return settings.model_copy(update={"people": listed})


def test_a_node_whose_policy_nobody_signed_refuses_everything(
    unsigned: SiteSettings, peer: Peer, pki: Pki
) -> None:
    study = make_study()
    peer.propose(sign(Proposal(study=study, proposed_at=1.0), pki.consortium).to_bytes())
    with open_node(unsigned, lambda _: SmallTrainer(), threading.Event()):
        assert peer.request(peer.first_task(study)).fields["code"] == "policy-unsigned"


def test_the_first_charter_counts_when_all_its_roles_have_signed(
    store: SiteStore, unsigned: SiteSettings, pki: Pki
) -> None:
    assert signed(store, unsigned, pki.people, pki.people.it) == ["dpo"]
    assert not is_in_effect(store, unsigned)
    assert signed(store, unsigned, pki.people, pki.people.it) == ["dpo"]  # twice is once
    assert signed(store, unsigned, pki.people, pki.people.dpo) == []
    assert is_in_effect(store, unsigned)


def test_a_later_charter_counts_only_with_the_people_of_the_one_before(
    store: SiteStore, unsigned: SiteSettings, pki: Pki
) -> None:
    for key in (pki.people.it, pki.people.dpo):
        signed(store, unsigned, pki.people, key)
    thief = People()
    taken = with_people(unsigned, thief)
    assert not is_in_effect(store, taken)
    with pytest.raises(LarreyError, match="person-unknown"):
        signed(store, taken, thief, thief.dpo)
    for key in (pki.people.it, pki.people.dpo):
        signed(store, taken, pki.people, key)
    assert is_in_effect(store, taken)
    assert not is_in_effect(store, unsigned)


def test_fewer_approvals_need_the_signatures_of_the_many(
    store: SiteStore, unsigned: SiteSettings, pki: Pki
) -> None:
    for key in (pki.people.it, pki.people.dpo):
        signed(store, unsigned, pki.people, key)
    policy = unsigned.policy.model_copy(update={"approvals": ("it",)})
    looser = unsigned.model_copy(update={"policy": policy})
    assert signed(store, looser, pki.people, pki.people.it) == ["dpo"]
    assert not is_in_effect(store, looser)


def looser(settings: SiteSettings) -> dict[str, SiteSettings]:
    """Return settings that protect less, each in one place."""
    (heart, *others) = settings.datasets
    changes: dict[str, dict[str, Any]] = {
        "policy": {"policy": settings.policy.model_copy(update={"min_units": 1})},
        "people": {"people": settings.people[:1]},
        "consortium": {"consortium": Consortium(key=SigningKey.generate().public)},
        "budget": {"datasets": (heart.model_copy(update={"epsilon": 90.0}), *others)},
        "unit": {"datasets": (heart.model_copy(update={"unit": "visit"}), *others)},
        "witness": {"witness": Witness()},
    }
    return {name: settings.model_copy(update=change) for name, change in changes.items()}


@pytest.mark.parametrize("what", ["policy", "people", "consortium", "budget", "unit", "witness"])
def test_nothing_that_protects_changes_without_the_people(
    store: SiteStore, unsigned: SiteSettings, pki: Pki, what: str
) -> None:
    watched = unsigned.model_copy(update={"witness": Witness(file=Path("/mnt/witness.log"))})
    for key in (pki.people.it, pki.people.dpo):
        signed(store, watched, pki.people, key)
    assert is_in_effect(store, watched)
    assert not is_in_effect(store, looser(watched)[what])


def test_a_signature_under_one_version_is_none_under_another(
    store: SiteStore, unsigned: SiteSettings, pki: Pki
) -> None:
    old = pki.people.policy_word(store, unsigned, pki.people.it)
    policy = unsigned.policy.model_copy(update={"min_noise_multiplier": 0.0})
    looser = unsigned.model_copy(update={"policy": policy})
    with pytest.raises(LarreyError, match="policy-differs"):
        sign_policy(store, looser, old)


def test_a_file_put_back_is_a_new_version_to_sign(
    store: SiteStore, unsigned: SiteSettings, pki: Pki
) -> None:
    policy = unsigned.policy.model_copy(update={"min_noise_multiplier": 5.0})
    stricter = unsigned.model_copy(update={"policy": policy})
    for settings in (unsigned, stricter):
        for key in (pki.people.it, pki.people.dpo):
            signed(store, settings, pki.people, key)
    assert is_in_effect(store, stricter)
    assert next_version(store.records.charters(), charter_of(unsigned)).number == 3
    assert not is_in_effect(store, unsigned)
    assert signed(store, unsigned, pki.people, pki.people.it) == ["dpo"]  # version 1 was another
    assert not is_in_effect(store, unsigned)


def test_who_left_stays_who_signed(store: SiteStore, unsigned: SiteSettings, pki: Pki) -> None:
    new = People()
    for settings in (unsigned, with_people(unsigned, new)):
        for key in (pki.people.it, pki.people.dpo):
            signed(store, settings, pki.people, key)
    dossier = read_dossier(store.records, unsigned.consortium.key)
    assert {pki.people.dpo.public, new.dpo.public} <= set(people_ever(dossier.past))
    assert {p.key for p in dossier.people} == {new.it.public, new.dpo.public}


@pytest.mark.parametrize(("is_signed", "kept"), [(True, 1), (False, 0)])
def test_copies_of_what_left_are_not_purged_by_a_policy_that_nobody_signed(
    store: SiteStore, unsigned: SiteSettings, pki: Pki, is_signed: bool, kept: int
) -> None:
    for key in (pki.people.it, pki.people.dpo) if is_signed else ():
        signed(store, unsigned, pki.people, key)
    log = EgressLog(unsigned.site.state)
    data = b"what left"
    sent = Sent(time.time(), "Exchange/Give", "", 0, "", "", len(data), digest_bytes(data))
    log.add(sent, data)
    log.close()
    policy = unsigned.policy.model_copy(update={"egress_days": 0.0})
    hasty = unsigned.model_copy(update={"policy": policy})
    with open_logs(hasty, store, threading.Event()):
        pass  # it purges at once
    read = open_log(unsigned.site.state)
    assert sum(one["is_kept"] for one in read.messages()) == kept
    read.connection.close()


def test_an_auditor_signs_no_policy(store: SiteStore, unsigned: SiteSettings, pki: Pki) -> None:
    auditor = SigningKey.generate()
    people = (*unsigned.people, Person(name="aude", role="auditor", key=auditor.public))
    settings = unsigned.model_copy(update={"people": people})
    with pytest.raises(LarreyError, match="role-not-allowed"):
        signed(store, settings, pki.people, auditor)


def test_a_policy_that_asks_for_nobody_cannot_be_signed(
    store: SiteStore, unsigned: SiteSettings, pki: Pki
) -> None:
    lonely = unsigned.model_copy(update={"people": unsigned.people[:1]})
    with pytest.raises(LarreyError, match="people-missing"):
        signed(store, lonely, pki.people, pki.people.it)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE charters SET charter = CAST(replace(charter, '1.0', '0.1') AS BLOB)",
        "DELETE FROM charters",
        "DELETE FROM documents WHERE kind = 'policysignature'",
        "UPDATE documents SET signed = CAST(replace(signed, 'dora', 'anna') AS BLOB)",
    ],
)
def test_a_changed_charter_is_found_and_never_founds_another(
    settings: SiteSettings, change: str
) -> None:
    connection = sqlite3.connect(settings.site.state / "site.db", isolation_level=None)
    for table in ("charters", "documents"):
        for verb in ("update", "delete"):
            connection.execute(f"DROP TRIGGER {table}_no_{verb}")
    connection.execute(change)
    connection.close()
    store = SiteStore.open(settings.site.state, time.time)
    try:
        dossier = read_dossier(store.records, settings.consortium.key)
        assert "document-altered" in dossier.altered or "bad-signature" in dossier.altered
        assert dossier.charter is None
        thief = People()
        with pytest.raises(LarreyError, match="document-altered"):
            signed(store, with_people(settings, thief), thief, thief.dpo)
    finally:
        store.close()


def test_no_versions_have_no_effect() -> None:
    assert effective((), ()) is None


def test_a_person_gets_a_key_and_lines_for_the_file(
    site: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "passphrase"
    secret.touch(0o600)
    secret.write_text("a long enough one")
    monkeypatch.setenv(PASSPHRASE_FILE, str(secret))
    out = tmp_path / "eve.key"
    status, lines, _ = site("person", "new", "eve", "--role", "dpo", "--out", str(out))
    assert status == 0
    assert lines.startswith('[[people]]\nname = "eve"\nrole = "dpo"\nkey = "ed25519:')
    assert b"ENCRYPTED" in out.read_bytes()
    assert SigningKey.load(out, b"a long enough one").public in lines
    assert "dora" in site("person", "list")[1]


def test_policy_is_shown_signed_and_shown_again(
    site: Run, site_file: Path, pki: Pki, settings: SiteSettings
) -> None:
    pki.people.it.save(site_file.parent / "it.key")
    pki.people.dpo.save(site_file.parent / "dpo.key")
    assert "in effect" in site("policy", "show")[1]
    text = site_file.read_text().replace("max_epsilon_per_study = 3.0", "min_units = 30")
    site_file.write_text(text)
    shown = site("policy", "show")[1]
    assert "NOT in effect" in shown
    assert "policy.min_units: 20 -> 30" in shown
    assert "by it and dpo" in shown
    for role, rest in (("it", "still to sign: dpo"), ("dpo", "it is in effect")):
        key = str(site_file.parent / f"{role}.key")
        status, out, error = site("policy", "sign", "--key", key)
        assert (status, rest in out, error) == (0, True, "")
    assert "version 2, in effect" in site("policy", "show")[1]


def test_who_cannot_approve_is_not_offered_as_an_approver(site_file: Path) -> None:
    text = site_file.read_text()
    site_file.write_text(text.replace('approvals = ["it", "dpo"]', 'approvals = ["lead"]'))
    with pytest.raises(LarreyError, match="invalid-file") as caught:
        load_settings(site_file)
    assert "'it' or 'dpo'" in str(caught.value)
    assert "operator" not in str(caught.value)
