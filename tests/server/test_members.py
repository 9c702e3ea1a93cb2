"""The rules of membership over a journal, with a clock of their own."""

from __future__ import annotations

import base64
import datetime as dt
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.certificates import (
    expiry_of,
    issue_client,
    make_authority,
    make_request,
)
from larrey_protocol.enrolment import JoinRequest, MailedRequest, prove
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.keys import SigningKey, fingerprint
from larrey_protocol.signed import sign
from larrey_server.journal import Journal
from larrey_server.members import Member, MemberRow, fold
from larrey_server.membership import Authority, Membership
from larrey_server.registry import Registry
from tests.server.asking import Asking
from tests.server.peers import NOW

DAY_S = 86400.0
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "not-allowed")
NOBODY = (grpc.StatusCode.UNAUTHENTICATED, "not-registered")


@dataclass
class Office:
    """A membership over a journal, with a clock of its own."""

    membership: Membership
    registry: Registry
    journal: Journal
    clock: list[float]

    def invite(self, site: str, days: float = 3) -> tuple[Member, str, bytes]:
        request, key = make_request("invitation")
        made = self.membership.invite(site, request, days, "operator")
        member = self.registry.by_certificate(made["certificate"].encode())
        assert member is not None
        assert member.role == "invited"
        return member, made["invitation"], key


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    authority = make_authority("test", now=NOW)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "ca.key").touch(0o600)
    (tmp_path / "ca.key").write_bytes(authority.key)
    clock = [NOW.timestamp()]
    registry = Registry((), lambda: clock[0])
    journal = Journal.open(tmp_path / "coordinator.db")
    files = Authority(tmp_path / "ca.crt", tmp_path / "ca.key")
    membership = Membership(journal, registry, files, max_sites=2, clock=lambda: clock[0])
    yield Office(membership, registry, journal, clock)
    journal.close()


def test_an_invitation_expires(office: Office) -> None:
    invited, invitation, _ = office.invite("alpha", days=3)
    signed = Asking.make("alpha").signed("alpha", invitation)
    office.clock[0] += 3 * DAY_S
    with pytest.raises(Refusal) as caught:
        office.membership.join(invited, signed.to_bytes())
    assert caught.value.code == "invitation-expired"
    assert not office.registry.sites


def test_an_ended_certificate_is_nobody_s_even_on_an_open_connection(office: Office) -> None:
    invited, invitation, _ = office.invite("alpha")
    signed = Asking.make("alpha").signed("alpha", invitation)
    certificate = office.membership.join(invited, signed.to_bytes())
    assert office.registry.by_certificate(certificate) is not None
    office.clock[0] += 90 * DAY_S
    assert office.registry.by_certificate(certificate) is None


def test_a_request_that_came_by_mail_needs_the_invitation_s_key(office: Office) -> None:
    _, invitation, key = office.invite("alpha")
    signed = Asking.make("alpha").signed("alpha", invitation)
    exchanged = Asking.make("alpha").signed("alpha", invitation)
    proof = prove(signed, key)
    with pytest.raises(IntegrityError) as caught:
        office.membership.admit(MailedRequest(request=exchanged, proof=proof), "operator")
    assert caught.value.code == "bad-signature"
    answer = office.membership.admit(MailedRequest(request=signed, proof=proof), "operator")
    assert answer["fingerprint"] == fingerprint(signed.signer)
    assert office.registry.sites["alpha"].signing_key == signed.signer


def test_the_number_of_sites_is_limited(office: Office) -> None:
    office.invite("alpha")
    office.invite("beta")
    office.invite("beta")  # anew, in its own place
    with pytest.raises(Refusal) as caught:
        office.invite("gamma")
    assert caught.value.code == "too-many-sites"
    office.membership.revoke("beta", "operator")
    office.invite("gamma")  # in the place that is free now


def test_who_left_is_no_member_and_every_step_is_in_the_audit_trail(office: Office) -> None:
    invited, invitation, _ = office.invite("alpha")
    ended: list[str] = []
    office.membership.listen(ended.append)
    signed = Asking.make("alpha").signed("alpha", invitation)
    certificate = office.membership.join(invited, signed.to_bytes())
    office.membership.leave("alpha")
    office.membership.leave("alpha")  # saying it twice changes nothing
    assert office.registry.by_certificate(certificate) is None
    assert ended == ["alpha"]
    steps = [(record.action, record.subject) for record in office.journal.audit()]
    assert steps == [(f"site-{what}", "alpha") for what in ("invited", "joined", "left")]


def test_without_the_authority_s_key_nobody_is_invited(tmp_path: Path, office: Office) -> None:
    files = Authority(tmp_path / "ca.crt", None)
    membership = Membership(office.journal, office.registry, files, max_sites=2)
    with pytest.raises(Refusal) as caught:
        membership.invite("alpha", make_request("x")[0], 3, "operator")
    assert caught.value.code == "authority-absent"


def test_members_are_only_ever_added_to_the_journal(office: Office) -> None:
    office.invite("alpha")
    with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
        office.journal._connection.execute("UPDATE members SET state = 'active'")


@pytest.mark.parametrize(
    "request_text", [b"", b"x" * 10_000, b"-----BEGIN CERTIFICATE REQUEST-----"]
)
def test_a_malformed_certificate_request_is_refused(office: Office, request_text: bytes) -> None:
    with pytest.raises(LarreyError) as caught:
        office.membership.invite("alpha", request_text, 3, "operator")
    assert caught.value.code == "bad-request"


ROWS = st.lists(
    st.builds(
        MemberRow,
        site=st.sampled_from(["a", "b"]),
        state=st.sampled_from(["invited", "active", "revoked", "left"]),
        at=st.just(1.0),
        transport_key=st.binary(min_size=8, max_size=8),
        signing_key=st.just("ed25519:" + "A" * 43),
        invitation=st.sampled_from(["", "i"]),
        expires_at=st.just(2.0),
    ),
    unique_by=lambda row: row.transport_key,
)


@given(rows=ROWS)
def test_only_keys_since_a_site_s_last_end_or_invitation_count(rows: list[MemberRow]) -> None:
    view = fold([Member("a", "site", "k", b"listed")], rows)
    for site in ("a", "b"):
        own = [row for row in rows if row.site == site]
        ends = [i for i, row in enumerate(own) if row.state != "active"]
        since = own[ends[-1] :] if ends else own
        allowed = {row.transport_key for row in since if row.state in ("active", "invited")}
        allowed |= {b"listed"} if site == "a" and not ends else set()
        active = {k for k, m in view.keys.items() if (m.name, m.role) == (site, "site")}
        assert {k for k, m in view.keys.items() if m.name == site} <= allowed
        assert active == allowed - {r.transport_key for r in since if r.state == "invited"}
        assert (site in view.sites) == bool(active)


def test_dates_of_a_certificate_are_read_in_seconds() -> None:
    credential = issue_client(make_authority("x", now=NOW), "x", now=NOW, days=1)
    end = (NOW + dt.timedelta(days=1)).timestamp()
    assert expiry_of(credential.certificate) == pytest.approx(end, abs=1)


def member(office: Office, site: str, asking: Asking) -> Member:
    """Return a site that joined."""
    invited, invitation, _ = office.invite(site)
    office.membership.join(invited, asking.signed(site, invitation).to_bytes())
    return office.registry.sites[site]


@pytest.mark.parametrize("end", ["revoked", "left"])
def test_a_renewal_that_waited_while_the_membership_ended_does_not_bring_it_back(
    office: Office, end: str
) -> None:
    asking = Asking.make("alpha")
    caller = member(office, "alpha", asking)
    if end == "revoked":
        office.membership.revoke("alpha", "operator")
    else:
        office.membership.leave("alpha")
    office.clock[0] += 2 * DAY_S
    request = Asking.make("alpha", asking.key).signed("alpha")
    with pytest.raises(Refusal) as caught:
        office.membership.renew(caller, request.to_bytes())
    assert caught.value.code == "not-a-member"
    assert "alpha" not in office.registry.sites


def test_a_renewal_changes_the_certificate_s_key_alone(office: Office) -> None:
    asking, other = Asking.make("alpha"), SigningKey.generate()
    caller = member(office, "alpha", asking)
    office.clock[0] += 2 * DAY_S
    document = JoinRequest(
        invitation="",
        site="alpha",
        request=Asking.make("alpha").request.decode(),
        signing_key=other.public,
        at=0.0,
    )
    with pytest.raises(IntegrityError, match="wrong-signer"):
        office.membership.renew(caller, sign(document, asking.key).to_bytes())
    assert office.registry.sites["alpha"].signing_key == asking.key.public


def test_an_invitation_s_credential_ends_with_the_first_renewal(office: Office) -> None:
    asking = Asking.make("alpha")
    invited, invitation, _ = office.invite("alpha")
    office.membership.join(invited, asking.signed("alpha", invitation).to_bytes())
    assert invited.transport_key in office.registry.view.keys  # the answer may have been lost
    office.clock[0] += 2 * DAY_S
    again = Asking.make("alpha", asking.key).signed("alpha")
    office.membership.renew(office.registry.sites["alpha"], again.to_bytes())
    assert invited.transport_key not in office.registry.view.keys


def test_a_join_is_not_repeated_without_end(office: Office) -> None:
    asking = Asking.make("alpha")
    invited, invitation, _ = office.invite("alpha")
    data = asking.signed("alpha", invitation).to_bytes()
    for _ in range(10):
        office.membership.join(invited, data)
    rows = len(office.journal.members())
    with pytest.raises(Refusal) as caught:
        office.membership.join(invited, data)
    assert caught.value.code == "too-many-attempts"
    assert len(office.journal.members()) == rows


def test_a_place_that_was_given_away_is_not_there_for_who_had_it(office: Office) -> None:
    office.invite("alpha")
    office.membership.revoke("alpha", "operator")
    office.invite("beta")
    office.invite("gamma")
    with pytest.raises(Refusal) as caught:
        office.invite("alpha")
    assert caught.value.code == "too-many-sites"


def test_no_site_has_the_name_under_which_the_coordinator_signs(office: Office) -> None:
    with pytest.raises(Refusal) as caught:
        office.invite("coordinator")
    assert caught.value.code == "name-reserved"


def test_a_request_with_a_key_on_an_unknown_curve_is_malformed(office: Office) -> None:
    request = x509.load_pem_x509_csr(make_request("alpha")[0]).public_bytes(Encoding.DER)
    p256, other = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030106")
    odd = x509_pem(request.replace(p256, other))
    with pytest.raises(LarreyError) as caught:
        office.membership.invite("alpha", odd, 3, "operator")
    assert caught.value.code == "bad-request"


def x509_pem(der: bytes) -> bytes:
    lines = base64.encodebytes(der).decode()
    name = "CERTIFICATE REQUEST"
    return f"-----BEGIN {name}-----\n{lines}-----END {name}-----\n".encode()
