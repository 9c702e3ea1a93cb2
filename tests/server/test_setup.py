"""`larrey init` and the commands about members, as a person types them."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_protocol.certificates import make_request
from larrey_protocol.enrolment import Invitation, JoinRequest, MailedRequest, prove, read_record
from larrey_protocol.errors import FileError
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.signed import sign
from larrey_server.cli import main
from larrey_server.serve import Hub
from larrey_server.settings import Listen, load_coordinator, load_operator
from larrey_server.setup import Made, create

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Return a consortium whose coordinator runs."""
    folder = tmp_path_factory.mktemp("init") / "trial"
    made = create(folder, "localhost:9443", [], now=NOW, passphrase=None)
    settings = load_coordinator(made.coordinator)
    hub = Hub(settings.model_copy(update={"listen": Listen(address="127.0.0.1:0", metrics="")}))
    port = hub.address.rpartition(":")[2]
    text = made.operator.read_text().replace("localhost:9443", f"localhost:{port}")
    made.operator.write_text(text)
    yield made
    hub.stop()


def test_a_new_consortium_s_secrets_are_closed_and_its_files_valid(tmp_path: Path) -> None:
    before = os.umask(0)  # an account that lets others write all it makes
    try:
        made = create(tmp_path / "new", "hub.example.org:443", ["hub2"], now=NOW, passphrase=None)
    finally:
        os.umask(before)
    for file in (tmp_path / "new").rglob("*"):
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode & 0o022 == 0, file
        is_secret = file.is_dir() or file.suffix in {".key", ".ed25519"}
        assert not is_secret or mode & 0o077 == 0, file
    settings, operator = load_coordinator(made.coordinator), load_operator(made.operator)
    assert settings.sites == ()
    assert settings.listen.address == "0.0.0.0:443"
    assert operator.consortium is not None
    assert operator.consortium.key == settings.consortium.key
    assert made.consortium_fingerprint in (made.consortium / "README.txt").read_text()
    assert "offline" in (made.consortium / "README.txt").read_text()


def test_init_listens_on_loopback_unless_asked(tmp_path: Path) -> None:
    made = create(tmp_path / "new", "localhost:9443", [], now=NOW, passphrase=None)
    assert load_coordinator(made.coordinator).listen.address == "127.0.0.1:9443"


def test_init_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(FileError) as caught:
        create(tmp_path, "localhost:9443", [], now=NOW, passphrase=None)
    assert caught.value.code == "file-exists"
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_the_consortium_s_key_may_be_behind_a_passphrase(tmp_path: Path) -> None:
    made = create(tmp_path / "new", "localhost:9443", [], now=NOW, passphrase=b"a long passphrase")
    file = made.consortium / "consortium.ed25519"
    with pytest.raises(FileError) as caught:
        SigningKey.load(file)
    assert caught.value.code == "passphrase-needed"
    key = SigningKey.load(file, b"a long passphrase")
    assert fingerprint(key.public) == made.consortium_fingerprint


def test_init_says_what_to_read_out_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert "WITHOUT a passphrase" in out
    assert "offline" in out
    assert "larrey serve --config" in out


def test_an_invitation_is_one_closed_file_that_names_all_that_is_needed(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "st-mary.invite"
    command = ["invite", "st-mary", "--operator", str(made.operator), "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert made.consortium_fingerprint in said.err
    assert "PRIVATE KEY" not in said.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.stat().st_size < 4096
    invitation = read_record(out.read_bytes(), Invitation, "invitation")
    assert fingerprint(invitation.consortium) == made.consortium_fingerprint
    assert main(command) == 2  # never overwritten


def test_a_redirected_invitation_is_closed_to_others(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "redirected.invite"
    command = [sys.executable, "-m", "larrey_server", "invite", "redirected"]
    with out.open("wb") as file:
        subprocess.run([*command, "--operator", str(made.operator)], stdout=file, check=True)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert read_record(out.read_bytes(), Invitation, "invitation").site == "redirected"


def test_an_invitation_is_not_shown_on_a_terminal(made: Made) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "larrey_server", "invite", "shown"]
    done = subprocess.run(
        [*command, "--operator", str(made.operator)],
        stdout=follower,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(leader)
    os.close(follower)
    assert done.returncode == 2
    assert b"secret-on-terminal" in done.stderr


def test_an_invitation_for_another_consortium_is_refused(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = made.operator.read_text()
    ours = load_operator(made.operator).consortium
    assert ours is not None
    assert ours.key is not None
    other = made.operator.with_name("other.toml")
    other.write_text(text.replace(ours.key, SigningKey.generate().public))
    assert main(["invite", "x1", "--operator", str(other), "--out", str(tmp_path / "x")]) == 1
    assert "consortium-differs" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_site_is_admitted_by_mail_listed_and_revoked(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = ["--operator", str(made.operator)]
    main(["invite", "by-mail", *operator, "--out", str(tmp_path / "invite")])
    invitation = read_record((tmp_path / "invite").read_bytes(), Invitation, "invitation")
    key = SigningKey.generate()
    asked = JoinRequest(
        invitation=invitation.invitation,
        site="by-mail",
        request=make_request("by-mail")[0].decode(),
        signing_key=key.public,
        at=0.0,
    )
    signed = sign(asked, key)
    mailed = MailedRequest(request=signed, proof=prove(signed, invitation.key.encode()))
    (tmp_path / "request.json").write_text(mailed.model_dump_json())
    out = str(tmp_path / "admission.json")
    capsys.readouterr()
    assert main(["sites", "admit", str(tmp_path / "request.json"), "--out", out, *operator]) == 0
    assert fingerprint(key.public) in capsys.readouterr().out
    main(["sites", "list", "--json", *operator])
    states = {site["site"]: site["state"] for site in json.loads(capsys.readouterr().out)}
    assert states["by-mail"] == "active"
    assert main(["sites", "revoke", "by-mail", *operator]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["sites", "show", "nobody", *operator]) == 1
    assert "unknown-site" in capsys.readouterr().err
