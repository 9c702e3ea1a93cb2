"""The coordinator's own certificate: issued anew in time, taken from changed files, no restart."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from larrey_protocol.certificates import issue_server, make_authority, public_key_of, replace_file
from larrey_protocol.errors import FileError
from larrey_server.serve import Hub
from larrey_server.server_identity import ServerIdentity
from larrey_server.settings import Identity
from tests.server.peers import NOW, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder.make(tmp_path / "folder")
    made.write("ca.key", made.authority.key)
    return made


def identity_of(folder: Folder, *, has_key: bool = True) -> Identity:
    identity = folder.settings(folder.path).identity
    key = folder.path / "ca.key" if has_key else None
    return identity.model_copy(update={"authority_key": key})


def opened(folder: Folder, clock: list[dt.datetime], *, has_key: bool = True) -> ServerIdentity:
    identity = identity_of(folder, has_key=has_key)
    return ServerIdentity(identity, now=lambda: clock[0], renewed=lambda _: None)


def end_of(folder: Folder) -> dt.datetime:
    certificate = x509.load_pem_x509_certificate((folder.path / "server.crt").read_bytes())
    return certificate.not_valid_after_utc


def test_a_certificate_is_issued_anew_when_a_third_of_its_life_is_left(folder: Folder) -> None:
    clock = [NOW]
    identity = opened(folder, clock)
    old = (folder.path / "server.crt").read_bytes()
    clock[0] = NOW + dt.timedelta(days=240)
    assert identity.refreshed() is None
    clock[0] = NOW + dt.timedelta(days=250)
    assert identity.refreshed() is not None
    assert end_of(folder) - clock[0] > dt.timedelta(days=364)
    new = (folder.path / "server.crt").read_bytes()
    assert public_key_of(new) == public_key_of(old)
    names = [
        x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        for pem in (old, new)
    ]
    assert names[0] == names[1]
    assert identity.refreshed() is None


def test_without_the_authority_s_key_nothing_is_issued(folder: Folder) -> None:
    clock = [NOW + dt.timedelta(days=300)]
    identity = opened(folder, clock, has_key=False)
    before = end_of(folder)
    assert identity.refreshed() is None
    assert end_of(folder) == before


def test_an_authority_whose_files_do_not_belong_together_issues_nothing(folder: Folder) -> None:
    identity = opened(folder, [NOW + dt.timedelta(days=300)])
    before = (folder.path / "server.crt").read_bytes()
    folder.write("ca.key", make_authority("other", now=NOW).key)
    assert identity.refreshed() is None
    assert (folder.path / "server.crt").read_bytes() == before


def test_a_certificate_without_its_key_leaves_the_old_pair_in_force(folder: Folder) -> None:
    identity = opened(folder, [NOW])
    other = issue_server(folder.authority, ["localhost"], now=NOW)
    replace_file(folder.path / "server.crt", other.certificate)
    assert identity.refreshed() is None
    replace_file(folder.path / "server.key", other.key)
    assert identity.refreshed() is not None


@pytest.mark.parametrize("size", [0, 200])
def test_an_authority_that_is_half_written_leaves_the_old_one_in_force(
    folder: Folder, size: int
) -> None:
    identity, whole = opened(folder, [NOW]), folder.authority.certificate
    (folder.path / "ca.crt").write_bytes(whole[:size])
    assert identity.refreshed() is None
    (folder.path / "ca.crt").write_bytes(whole)
    assert identity.refreshed() is not None


def test_a_server_key_open_to_others_is_refused_at_the_start(folder: Folder) -> None:
    (folder.path / "server.key").chmod(0o644)
    with pytest.raises(FileError) as caught:
        opened(folder, [NOW])
    assert caught.value.code == "key-exposed"


def shown_by(address: str, folder: Folder) -> bytes:
    """Return the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(folder.path / "ca.crt"))
    context.load_cert_chain(folder.path / "operator.crt", folder.path / "operator.key")
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def test_a_running_coordinator_shows_its_new_certificate_to_the_next_caller(
    folder: Folder, tmp_path: Path
) -> None:
    settings = folder.settings(tmp_path / "state")
    hub = Hub(settings.model_copy(update={"identity": identity_of(folder)}))
    try:
        first = shown_by(hub.address, folder)
        other = issue_server(folder.authority, ["localhost"], now=NOW)
        replace_file(folder.path / "server.key", other.key)
        replace_file(folder.path / "server.crt", other.certificate)
        second = shown_by(hub.address, folder)
    finally:
        hub.stop()
    assert first != second
    assert second == ssl.PEM_cert_to_DER_cert(other.certificate.decode())


def test_an_old_certificate_is_renewed_by_the_first_handshake(
    folder: Folder, tmp_path: Path
) -> None:
    made = NOW - dt.timedelta(days=300)
    old = issue_server(folder.authority, ["localhost"], now=made)
    folder.write("server.crt", old.certificate)
    folder.write("server.key", old.key)
    settings = folder.settings(tmp_path / "state")
    hub = Hub(settings.model_copy(update={"identity": identity_of(folder)}))
    try:
        shown = x509.load_der_x509_certificate(shown_by(hub.address, folder))
    finally:
        hub.stop()
    assert shown.not_valid_after_utc > NOW + dt.timedelta(days=300)
