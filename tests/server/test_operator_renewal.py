"""An operator's certificate: renewed by its holder before it ends, by the coordinator after."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_protocol.certificates import (
    Credential,
    expiry_of,
    is_issued_by,
    issue_client,
    key_bytes,
    make_authority,
    public_key_of,
    reissue_client,
)
from larrey_protocol.errors import IntegrityError, UsageError
from larrey_server.cli import main
from larrey_server.operator_renewal import Renewed, install, require_current
from larrey_server.serve import Hub
from larrey_server.settings import Listen, OperatorSettings, load_coordinator, load_operator
from larrey_server.setup import Made, create

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
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


@pytest.fixture
def operator(running: Made) -> Iterator[OperatorSettings]:
    """Return the operator file, whose certificate is put back after the test."""
    settings = load_operator(running.operator)
    before = settings.identity.certificate.read_bytes()
    yield settings
    settings.identity.certificate.write_bytes(before)


def authority(running: Made) -> Credential:
    home = running.coordinator.parent
    return Credential((home / "ca.crt").read_bytes(), (home / "ca.key").read_bytes())


def age(running: Made, operator: OperatorSettings, days_left: float) -> bytes:
    """Give the operator a certificate of the same key with that many days left; return it."""
    old = operator.identity.certificate.read_bytes()
    made = NOW - (365 - days_left) * DAY
    aged = reissue_client(authority(running), old, "operator", now=made, days=365)
    operator.identity.certificate.write_bytes(aged)
    return aged


def test_a_certificate_that_is_about_to_end_is_renewed_over_the_connection_it_opens(
    running: Made, operator: OperatorSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    old = age(running, operator, days_left=2)
    words = ["--operator", str(running.operator)]
    assert main(["study", "list", *words]) == 0
    assert "larrey operator renew" in capsys.readouterr().err
    assert main(["operator", "renew", *words, "--json"]) == 0
    new = operator.identity.certificate.read_bytes()
    assert json.loads(capsys.readouterr().out)["certificate"] == str(operator.identity.certificate)
    assert expiry_of(new) - expiry_of(old) > 300 * 86400
    assert key_bytes(public_key_of(new)) == key_bytes(public_key_of(old))
    assert main(["study", "list", *words]) == 0
    assert "renew" not in capsys.readouterr().err
    assert main(["audit", "query", "--action", "operator-renewed", *words, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["actor"] == "operator"


def test_a_certificate_that_ended_is_issued_anew_on_the_coordinator_s_machine(
    running: Made, operator: OperatorSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    age(running, operator, days_left=-3)
    words = ["--operator", str(running.operator)]
    assert main(["operator", "renew", *words]) == 2
    told = capsys.readouterr().err
    assert "[certificate-expired]" in told
    assert "larrey operator reissue" in told
    out = tmp_path / "operator.crt"
    command = ["operator", "reissue", "operator", "--config", str(running.coordinator)]
    assert main([*command, "--out", str(out)]) == 0
    operator.identity.certificate.write_bytes(out.read_bytes())
    assert main(["study", "list", *words]) == 0
    assert main([*command, "--out", str(out)]) == 2
    assert "file-exists" in capsys.readouterr().err


def test_nobody_is_issued_a_certificate_who_is_not_listed(
    running: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.crt"
    command = ["operator", "reissue", "mallory", "--config", str(running.coordinator)]
    assert main([*command, "--out", str(out)]) == 1
    assert "[unknown-operator]" in capsys.readouterr().err
    assert not out.exists()


def test_whose_key_is_not_listed_is_not_renewed(
    running: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger, folder = (
        issue_client(authority(running), "operator", now=NOW),
        running.operator.parent,
    )
    (folder / "other.crt").write_bytes(stranger.certificate)
    (folder / "other.key").write_bytes(stranger.key)
    (folder / "other.key").chmod(0o600)
    other = folder / "other.toml"
    other.write_text(running.operator.read_text().replace('"operator.', '"other.'))
    assert main(["operator", "renew", "--operator", str(other)]) == 1
    assert "[not-an-operator]" in capsys.readouterr().err


@pytest.mark.parametrize("lie", ["another-key", "another-authority", "no-certificate"])
def test_an_answer_that_is_not_ours_changes_nothing(
    running: Made, operator: OperatorSettings, lie: str
) -> None:
    known, before = authority(running), operator.identity.certificate.read_bytes()
    issuer = make_authority("other", now=NOW) if lie == "another-authority" else known
    made = reissue_client(issuer, before, "operator", now=NOW, days=365)
    if lie == "another-key":
        made = issue_client(known, "operator", now=NOW).certificate
    text = "" if lie == "no-certificate" else made.decode()
    with pytest.raises(IntegrityError) as caught:
        install(operator, Renewed(certificate=text, authority=issuer.certificate.decode()))
    assert caught.value.code == "certificate-not-ours"
    assert operator.identity.certificate.read_bytes() == before
    assert is_issued_by(before, operator.coordinator.authority.read_bytes())


@pytest.mark.parametrize(("days", "said"), [(31.0, ""), (29.0, "29 days"), (0.5, "0 days")])
def test_a_warning_comes_in_the_last_thirty_days(
    operator: OperatorSettings, days: float, said: str
) -> None:
    end = expiry_of(operator.identity.certificate.read_bytes())
    moment = dt.datetime.fromtimestamp(end, dt.UTC) - days * DAY
    warning = require_current(operator, moment)
    assert bool(warning) is bool(said)
    assert said in warning
    with pytest.raises(UsageError, match="certificate-expired"):
        require_current(operator, moment + days * DAY)
