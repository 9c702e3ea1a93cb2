"""A node's certificate is renewed in time, without cutting calls, whole after any crash."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from larrey_client.credentials import Renewal, days_left, install, next_of, settle
from larrey_client.exchange import Exchange, Tls
from larrey_client.settings import load_settings
from larrey_protocol.certificates import (
    expiry_of,
    is_issued_by,
    issue_for_request,
    make_authority,
    make_request,
    public_key_of,
)
from larrey_protocol.enrolment import (
    Admission,
)
from larrey_protocol.errors import IntegrityError, TransportError
from larrey_protocol.keys import SigningKey
from larrey_protocol.v1 import larrey_pb2 as wire
from tests.client.node.registrar import DAY_S, NOW, Registrar, join, make_invitation


@pytest.fixture
def registrar() -> Iterator[Registrar]:
    peer = Registrar(make_authority("test", now=NOW)).start()
    yield peer
    peer.release.set()
    peer.server.stop(0).wait()


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
            settings.members[0],
            SigningKey.load(settings.identity.signing_key),
            self.exchange,
            now=lambda: self.clock[0],
            monotonic=lambda: self.clock[0],
            renewed=self.ended.append,
        )


@pytest.fixture
def running(tmp_path: Path, registrar: Registrar) -> Iterator[Running]:
    file, home = tmp_path / "site.invite", tmp_path / "node"
    invitation = make_invitation(registrar, SigningKey.generate().public)
    file.write_text(invitation.model_dump_json())
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
