"""A hospital joins: what it makes, what leaves, and what it refuses."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_client import joining
from larrey_client.cli import main
from larrey_client.settings import load_settings
from larrey_client.site_files import PACKAGED, Service, dataset_name, site_toml, unit
from larrey_protocol.certificates import (
    is_issued_by,
    issue_client,
    issue_for_request,
    make_authority,
    public_key_of,
)
from larrey_protocol.enrolment import (
    Admission,
    Invitation,
    MailedRequest,
    open_request,
    read_record,
)
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import SigningKey, fingerprint
from tests.client.node.registrar import NOW, Registrar, join, make_invitation

ROOT = Path(__file__).parents[3]
SERVICE = Service("larrey-site", Path("site.toml"), Path("identity"), Path("state"))


@pytest.fixture
def registrar() -> Iterator[Registrar]:
    peer = Registrar(make_authority("test", now=NOW)).start()
    yield peer
    peer.release.set()
    peer.server.stop(0).wait()


@pytest.fixture
def consortium() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def invitation(registrar: Registrar, consortium: SigningKey) -> Invitation:
    return make_invitation(registrar, consortium.public)


@pytest.fixture
def file(invitation: Invitation, tmp_path: Path) -> Path:
    path = tmp_path / "site.invite"
    path.write_text(invitation.model_dump_json())
    return path


def test_a_join_leaves_a_node_that_can_be_started(
    file: Path, tmp_path: Path, registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    data, home = tmp_path / "Heart Cohort.csv", tmp_path / "node"
    data.write_text("pid,y\n")
    assert join(file, home, "--yes", "--data", str(data)) == 0
    settings = load_settings(home / "site.toml")
    assert settings.site.name == "st-mary"
    assert [dataset.name for dataset in settings.datasets] == ["heart-cohort"]
    certificate = settings.identity.certificate.read_bytes()
    assert is_issued_by(certificate, settings.coordinator.authority.read_bytes())
    own = SigningKey.load(settings.identity.signing_key)
    assert registrar.requests[0].signer == own.public
    assert fingerprint(own.public) in capsys.readouterr().out
    assert f"--config {home}/site.toml" in (home / "larrey-site.service").read_text()
    left = {path.name for path in (home / "identity").iterdir()}
    assert left == {"ca.crt", "site.crt", "site.key", "signing.ed25519"}


def test_private_keys_are_closed_to_others_and_never_leave(
    file: Path, tmp_path: Path, registrar: Registrar
) -> None:
    home = tmp_path / "node"
    join(file, home, "--yes")
    identity = load_settings(home / "site.toml").identity
    for secret in (identity.key, identity.signing_key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "PRIVATE" not in registrar.requests[0].document


def test_a_site_may_join_before_it_declares_data(file: Path, tmp_path: Path) -> None:
    assert join(file, tmp_path / "node", "--yes") == 0
    assert load_settings(tmp_path / "node" / "site.toml").datasets == ()


def test_a_fingerprint_that_differs_is_refused_and_nothing_is_sent(
    file: Path, tmp_path: Path, registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    other = fingerprint(SigningKey.generate().public)
    assert join(file, tmp_path / "node", "--fingerprint", other) == 1
    assert "fingerprint-differs" in capsys.readouterr().err
    assert registrar.requests == []
    assert not (tmp_path / "node").exists()


def test_the_fingerprint_may_be_typed_as_it_was_heard(
    file: Path, tmp_path: Path, consortium: SigningKey
) -> None:
    heard = fingerprint(consortium.public).lower().replace("-", " ")
    assert join(file, tmp_path / "node", "--fingerprint", heard) == 0


def test_without_a_comparison_nothing_is_sent(
    file: Path, tmp_path: Path, registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    assert join(file, tmp_path / "node") == 2
    assert "not-compared" in capsys.readouterr().err
    assert registrar.requests == []


def test_an_expired_invitation_is_refused_at_once(invitation: Invitation, file: Path) -> None:
    with pytest.raises(Refusal) as caught:
        joining.read_invitation(file, invitation.expires_at)
    assert caught.value.code == "invitation-expired"


def test_a_file_that_is_no_invitation_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("", "[" * 100_000, '{"kind": "larrey-admission"}', "-----BEGIN"):
        (tmp_path / "x.invite").write_text(text)
        assert join(tmp_path / "x.invite", tmp_path / "node", "--yes") == 2
        assert "[invalid-file]" in (said := capsys.readouterr().err) or "[unknown-key]" in said


def test_a_coordinator_of_a_foreign_authority_is_not_trusted(
    invitation: Invitation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = make_authority("foreign", now=NOW).certificate.decode()
    path = tmp_path / "old.invite"
    path.write_text(invitation.model_copy(update={"authority": foreign}).model_dump_json())
    assert join(path, tmp_path / "node", "--yes") == 1
    assert "coordinator-untrusted" in capsys.readouterr().err


def test_a_refused_join_shows_the_coordinator_s_code_and_can_be_repeated(
    file: Path, tmp_path: Path, registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    registrar.code = "invitation-unknown"
    assert join(file, tmp_path / "node", "--yes") == 1
    assert "invitation-unknown" in capsys.readouterr().err
    registrar.code = ""
    assert join(file, tmp_path / "node", "--yes") == 0
    first, second = (open_request(signed) for signed in registrar.requests)
    assert (first.request, first.signing_key) == (second.request, second.signing_key)


def test_a_certificate_for_another_key_is_refused_and_nothing_is_installed(
    file: Path, tmp_path: Path, registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    registrar.instead = issue_client(registrar.authority, "st-mary", now=NOW).certificate
    assert join(file, tmp_path / "node", "--yes") == 1
    assert "admission-not-ours" in capsys.readouterr().err
    assert not (tmp_path / "node" / "site.toml").exists()


def test_a_folder_of_another_consortium_is_left_alone(
    invitation: Invitation, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "node"
    join(file, home, "--yes")
    before = (home / "site.toml").read_text()
    other = invitation.model_copy(update={"consortium": SigningKey.generate().public})
    file.write_text(other.model_dump_json())
    assert join(file, home, "--yes") == 1
    assert "other-membership" in capsys.readouterr().err
    assert (home / "site.toml").read_text() == before


def test_joining_again_keeps_settings_and_signing_key_and_brings_a_new_certificate(
    file: Path, tmp_path: Path
) -> None:
    home = tmp_path / "node"
    join(file, home, "--yes")
    (home / "site.toml").write_text((home / "site.toml").read_text() + "\n# ours\n")
    identity = load_settings(home / "site.toml").identity
    old = identity.certificate.read_bytes(), identity.signing_key.read_bytes()
    assert join(file, home, "--yes") == 0
    assert identity.signing_key.read_bytes() == old[1]
    assert public_key_of(identity.certificate.read_bytes()) != public_key_of(old[0])
    assert (home / "site.toml").read_text().endswith("# ours\n")


def test_joining_by_mail_sends_no_secret_and_ends_in_the_same_node(
    file: Path, tmp_path: Path, registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    home, out = tmp_path / "node", tmp_path / "request.json"
    words = ["--dir", str(home), "--yes"]
    assert main(["join", "--offline", str(file), "--out", str(out), *words]) == 0
    assert registrar.requests == []
    assert f"larrey-site join --finish admission.json --dir {home}" in capsys.readouterr().out
    assert "PRIVATE" not in out.read_text() + (home / "identity" / "join.json").read_text()
    mailed = read_record(out.read_bytes(), MailedRequest, "request")
    asked = open_request(mailed.request)
    certificate = issue_for_request(registrar.authority, asked.request.encode(), "st-mary", now=NOW)
    admission = Admission(
        site="st-mary",
        certificate=certificate.decode(),
        authority=registrar.authority.certificate.decode(),
    )
    answer = tmp_path / "admission.json"
    answer.write_text(admission.model_dump_json())
    assert main(["join", "--finish", str(answer), "--dir", str(home)]) == 0
    assert "larrey-site policy sign --key KEY" in capsys.readouterr().out
    settings = load_settings(home / "site.toml")
    assert settings.identity.certificate.read_bytes() == certificate
    assert main(["join", "--finish", str(answer), "--dir", str(home)]) == 2
    assert "no-join-begun" in capsys.readouterr().err


def test_the_packaged_unit_is_the_one_that_join_writes() -> None:
    assert (ROOT / "deploy" / "systemd" / "larrey-site.service").read_text() == unit(PACKAGED)


def test_a_written_unit_opens_the_coordinator_s_address_and_no_other() -> None:
    text = unit(Service("/x y", Path("c"), Path("i"), Path("s"), addresses=("192.0.2.7",)))
    assert "IPAddressDeny=any\nIPAddressAllow=localhost 192.0.2.7\n" in text
    assert 'ExecStart="/x y" run' in text


@pytest.mark.parametrize("name", ["Heart.csv", "2024 Größe.parquet", "...", "Ä.csv", "x" * 90])
def test_any_file_s_name_makes_a_valid_settings_file(name: str, tmp_path: Path) -> None:
    text = site_toml(
        tmp_path / "site.toml", "a1", "h:1", ("ed25519:" + "A" * 43, "F"), [Path(name)]
    )
    (tmp_path / "site.toml").write_text(text)
    assert load_settings(tmp_path / "site.toml").datasets[0].name == dataset_name(Path(name))


def test_a_member_joins_one_more_coordinator_and_keeps_its_signing_key(
    file: Path, tmp_path: Path, registrar: Registrar
) -> None:
    home, other = tmp_path / "node", SigningKey.generate().public
    assert join(file, home, "--yes") == 0
    before, unit_before = (home / "site.toml").read_text(), (home / "larrey-site.service").stat()
    second = tmp_path / "second.invite"
    second.write_text(make_invitation(registrar, other).model_dump_json())
    assert join(second, home, "--yes", "--membership", "north") == 0
    assert (home / "site.toml").read_text().startswith(before)
    assert (home / "larrey-site.service").stat() == unit_before
    first, north = load_settings(home / "site.toml").members
    assert (north.name, north.consortium.key) == ("north", other)
    assert north.identity.signing_key == first.identity.signing_key
    assert north.identity.key.read_bytes() != first.identity.key.read_bytes()
    assert len({open_request(signed).signing_key for signed in registrar.requests}) == 1
    assert join(second, home, "--yes", "--membership", "north") == 0  # a new certificate
    assert len(load_settings(home / "site.toml").members) == 2


def test_a_membership_is_added_to_its_own_site_under_its_own_name_alone(
    file: Path, tmp_path: Path, registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    home, other = tmp_path / "node", SigningKey.generate().public
    invited = make_invitation(registrar, other)
    second, foreign = tmp_path / "second.invite", tmp_path / "foreign.invite"
    second.write_text(invited.model_dump_json())
    foreign.write_text(invited.model_copy(update={"site": "st-anne"}).model_dump_json())
    assert join(second, home, "--yes", "--membership", "north") == 2
    assert "no-first-membership" in capsys.readouterr().err
    assert join(file, home, "--yes") == 0
    for words in ([second], [file, "--membership", "north"], [foreign, "--membership", "north"]):
        path, *more = words
        assert join(Path(path), home, "--yes", *map(str, more)) == 1
        assert "other-membership" in capsys.readouterr().err
    assert len(registrar.requests) == 1
