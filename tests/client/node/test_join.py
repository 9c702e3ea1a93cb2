"""A hospital joins: what it makes, what leaves, what it refuses; and its certificate is renewed."""

from __future__ import annotations

import datetime as dt
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from larrey_client import joining
from larrey_client.cli import main
from larrey_client.credentials import Renewal, days_left, install, next_of, settle
from larrey_client.exchange import Exchange, Tls
from larrey_client.settings import load_settings
from larrey_client.site_files import PACKAGED, Service, dataset_name, site_toml, unit
from larrey_protocol.certificates import (
    Credential,
    expiry_of,
    is_issued_by,
    issue_client,
    issue_for_request,
    issue_server,
    make_authority,
    make_request,
    public_key_of,
)
from larrey_protocol.enrolment import (
    Admission,
    Invitation,
    MailedRequest,
    open_request,
    read_record,
)
from larrey_protocol.errors import IntegrityError, Refusal, TransportError
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.signed import Signed
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs

ROOT = Path(__file__).parents[3]
NOW = dt.datetime.now(dt.UTC)
DAY_S = 86400.0
SERVICE = Service("larrey-site", Path("site.toml"), Path("identity"), Path("state"))


@dataclass
class Registrar(stubs.EnrolmentServicer, stubs.StudiesServicer):
    """A coordinator that signs every request it understands, unless told to answer otherwise."""

    authority: Credential
    issued_at: dt.datetime = NOW
    code: str = ""
    instead: bytes = b""  # a certificate of somebody else
    lists: int = 0
    requests: list[Signed] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    server: Any = None

    def start(self) -> Registrar:
        server = grpc.server(ThreadPoolExecutor(4))
        credential = issue_server(self.authority, ["localhost"], now=NOW)
        tls = grpc.ssl_server_credentials(
            [(credential.key, credential.certificate)],
            self.authority.certificate,
            require_client_auth=True,
        )
        stubs.add_EnrolmentServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        stubs.add_StudiesServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        self.port = server.add_secure_port("127.0.0.1:0", tls)
        server.start()
        self.server = server
        return self

    def Join(self, request: wire.JoinCall, context: grpc.ServicerContext) -> wire.JoinReply:
        return self._issue(request.request)

    def Renew(self, request: wire.RenewCall, context: grpc.ServicerContext) -> wire.JoinReply:
        return self._issue(request.request)

    def List(
        self, request: wire.ListStudiesRequest, context: grpc.ServicerContext
    ) -> wire.ListStudiesReply:
        """Hold the first call until it is released, answer the others at once."""
        self.lists += 1
        if self.lists == 1:
            self.waiting.set()
            self.release.wait(10)
        pem = context.auth_context()["x509_pem_cert"][0]
        return wire.ListStudiesReply(proposals=[pem])

    def _issue(self, data: bytes) -> wire.JoinReply:
        signed = Signed.from_bytes(data)
        self.requests.append(signed)
        if self.code:
            return wire.JoinReply(code=self.code)
        asked = open_request(signed)
        certificate = issue_for_request(
            self.authority, asked.request.encode(), asked.site, now=self.issued_at
        )
        return wire.JoinReply(
            certificate=self.instead or certificate, authority=self.authority.certificate
        )


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
    bootstrap = issue_client(registrar.authority, "invitation", now=NOW, days=3)
    return Invitation(
        invitation="0" * 32,
        site="st-mary",
        address=f"localhost:{registrar.port}",
        authority=registrar.authority.certificate.decode(),
        consortium=consortium.public,
        certificate=bootstrap.certificate.decode(),
        key=bootstrap.key.decode(),
        expires_at=NOW.timestamp() + 3 * DAY_S,
    )


@pytest.fixture
def file(invitation: Invitation, tmp_path: Path) -> Path:
    path = tmp_path / "site.invite"
    path.write_text(invitation.model_dump_json())
    return path


def join(file: Path, folder: Path, *more: str) -> int:
    return main(["join", str(file), "--dir", str(folder), "--json", *more])


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


@dataclass
class Running:
    """The credentials of a node that joined, and clocks that stand still."""

    home: Path
    registrar: Registrar
    exchange: Exchange
    clock: list[float] = field(default_factory=lambda: [NOW.timestamp()])
    ended: list[float] = field(default_factory=list)

    @property
    def certificate(self) -> bytes:
        return (self.home / "identity" / "site.crt").read_bytes()

    def renewal(self) -> Renewal:
        settings = load_settings(self.home / "site.toml")
        return Renewal(
            settings,
            SigningKey.load(settings.identity.signing_key),
            self.exchange,
            now=lambda: self.clock[0],
            monotonic=lambda: self.clock[0],
            renewed=self.ended.append,
        )


@pytest.fixture
def running(file: Path, tmp_path: Path, registrar: Registrar) -> Iterator[Running]:
    home = tmp_path / "node"
    join(file, home, "--yes")
    place = home / "identity"
    tls = Tls(*((place / name).read_bytes() for name in ("ca.crt", "site.crt", "site.key")))
    exchange = Exchange(f"localhost:{registrar.port}", tls, lambda _sent, _received: None)
    yield Running(home, registrar, exchange)
    exchange.close()


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(running: Running) -> None:
    old, renewal = running.certificate, running.renewal()
    running.clock[0] += 59 * DAY_S
    assert not renewal.look()
    running.clock[0] += 2 * DAY_S
    running.registrar.issued_at = NOW + dt.timedelta(days=61)
    assert renewal.look()
    assert public_key_of(running.certificate) != public_key_of(old)
    assert running.ended == [expiry_of(running.certificate)]
    identity = load_settings(running.home / "site.toml").identity
    assert days_left(identity, running.clock[0]) in {89, 90}
    assert not renewal.look()  # not before an hour has passed


def test_a_renewed_certificate_is_used_without_cutting_the_call_in_flight(
    running: Running,
) -> None:
    first: list[wire.ListStudiesReply] = []
    call = threading.Thread(target=lambda: first.append(running.exchange.studies()))
    call.start()
    assert running.registrar.waiting.wait(10)
    running.clock[0] += 61 * DAY_S
    old = running.certificate
    assert running.renewal().look()
    shown = running.exchange.studies().proposals[0]
    assert shown.strip() == running.certificate.strip()
    running.registrar.release.set()
    call.join(10)
    assert first[0].proposals[0].strip() == old.strip()


def test_a_renewal_that_fails_is_tried_again_an_hour_later(running: Running) -> None:
    old, renewal = running.certificate, running.renewal()
    running.clock[0] += 61 * DAY_S
    running.registrar.code = "renewed-lately"
    assert not renewal.look()
    assert running.certificate == old
    running.registrar.code = ""
    assert not renewal.look()
    running.clock[0] += 3600
    assert renewal.look()


def test_a_folder_that_cannot_be_written_is_noticed_before_anything_is_asked(
    running: Running, tmp_path: Path
) -> None:
    asked = len(running.registrar.requests)
    next_of(running.home / "identity" / "site.key").with_suffix(".next.part").mkdir()
    running.clock[0] += 61 * DAY_S
    assert not running.renewal().look()
    assert len(running.registrar.requests) == asked


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_replacement_cut_at_any_moment_leaves_a_pair(
    running: Running, renames: int, registrar: Registrar
) -> None:
    """Do the first steps of an installation by hand, then start as a node does."""
    identity = load_settings(running.home / "site.toml").identity
    request, key = make_request("st-mary")
    certificate = issue_for_request(registrar.authority, request, "st-mary", now=NOW)
    next_of(identity.key).write_bytes(key)
    next_of(identity.certificate).write_bytes(certificate)
    if renames >= 1:
        next_of(identity.key).replace(identity.key)
    if renames == 2:
        next_of(identity.certificate).replace(identity.certificate)
    settle(identity)
    assert identity.key.read_bytes() == key
    assert identity.certificate.read_bytes() == certificate
    assert not next_of(identity.key).exists()
    assert not next_of(identity.certificate).exists()


def test_a_replacement_that_had_no_certificate_yet_changes_nothing(running: Running) -> None:
    identity = load_settings(running.home / "site.toml").identity
    old = identity.key.read_bytes(), identity.certificate.read_bytes()
    next_of(identity.key).write_bytes(make_request("st-mary")[1])
    next_of(identity.certificate).write_bytes(b"-----BEGIN CERTIF")  # cut short
    settle(identity)
    assert (identity.key.read_bytes(), identity.certificate.read_bytes()) == old


def test_a_changed_authority_comes_with_the_renewal(running: Running, registrar: Registrar) -> None:
    identity = load_settings(running.home / "site.toml").identity
    request, key = make_request("st-mary")
    next_of(identity.key).write_bytes(key)
    other = make_authority("next", now=NOW)
    bundle = other.certificate + registrar.authority.certificate
    certificate = issue_for_request(other, request, "st-mary", now=NOW)
    admission = Admission(
        site="st-mary", certificate=certificate.decode(), authority=bundle.decode()
    )
    install(admission, identity, running.home / "identity" / "ca.crt")
    assert (running.home / "identity" / "ca.crt").read_bytes() == bundle
    assert is_issued_by(identity.certificate.read_bytes(), bundle)


def test_a_closed_exchange_opens_no_new_call(running: Running) -> None:
    running.exchange.close()
    with pytest.raises(TransportError), suppress(IntegrityError):
        running.exchange.studies()
