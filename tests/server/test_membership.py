"""Who becomes a member over the network; what an invitation's credential may do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from larrey_protocol.certificates import (
    Credential,
    issue_client,
    make_authority,
    make_request,
)
from larrey_protocol.errors import Refusal
from larrey_protocol.keys import fingerprint
from larrey_protocol.signed import Signed
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_protocol.v1 import larrey_pb2_grpc as stubs
from larrey_server.serve import Hub
from larrey_server.settings import CoordinatorSettings
from tests.server.asking import Asking
from tests.server.peers import NOW, Federation, Folder, until

DAY_S = 86400.0
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "not-allowed")
NOBODY = (grpc.StatusCode.UNAUTHENTICATED, "not-registered")


def with_authority(folder: Folder, state: Path) -> CoordinatorSettings:
    if not (folder.path / "ca.key").exists():
        folder.write("ca.key", folder.authority.key)
    settings = folder.settings(state)
    identity = settings.identity.model_copy(update={"authority_key": folder.path / "ca.key"})
    return settings.model_copy(update={"identity": identity})


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = Folder.make(tmp_path_factory.mktemp("federation"))
    hub = Hub(with_authority(folder, tmp_path_factory.mktemp("state")))
    yield Federation(folder, hub)
    hub.stop()


def invite(federation: Federation, site: str) -> tuple[str, Credential]:
    """Return an invitation's id and its credential, as an operator's command makes it."""
    request, key = make_request("invitation")
    asked = {"verb": "invite", "site": site, "days": 3, "request": request.decode()}
    with federation.operator() as operator:
        made = operator.members(asked)
    assert made["consortium"] == federation.folder.consortium.public
    return made["invitation"], Credential(made["certificate"].encode(), key)


def join(federation: Federation, credential: Credential, signed: Signed) -> wire.JoinReply:
    with federation.channel(credential) as channel:
        call = wire.JoinCall(request=signed.to_bytes())
        reply: wire.JoinReply = stubs.EnrolmentStub(channel).Join(call, timeout=5)
    return reply


def renew(federation: Federation, credential: Credential, signed: Signed) -> wire.JoinReply:
    with federation.channel(credential) as channel:
        call = wire.RenewCall(request=signed.to_bytes())
        reply: wire.JoinReply = stubs.EnrolmentStub(channel).Renew(call, timeout=5)
    return reply


def list_studies(federation: Federation, credential: Credential) -> Any:
    with federation.channel(credential) as channel:
        return stubs.StudiesStub(channel).List(wire.ListStudiesRequest(), timeout=5)


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def joined(federation: Federation, site: str) -> tuple[Credential, Asking]:
    """Return a new member."""
    invitation, bootstrap = invite(federation, site)
    asking = Asking.make(site)
    reply = join(federation, bootstrap, asking.signed(site, invitation))
    assert reply.code == ""
    return Credential(reply.certificate, asking.private), asking


def test_an_invited_site_is_a_member_as_soon_as_it_joined(federation: Federation) -> None:
    credential, asking = joined(federation, "gamma")
    assert list_studies(federation, credential).revision > 0
    assert federation.hub.coordinator.registry.sites["gamma"].signing_key == asking.key.public
    with federation.operator() as operator:
        facts = operator.members({"verb": "show", "site": "gamma"})
    assert (facts["state"], facts["fingerprint"]) == ("active", fingerprint(asking.key.public))
    assert facts["expires_at"] - time.time() == pytest.approx(90 * DAY_S, abs=60)


def test_a_site_that_joined_while_running_is_given_work_over_a_long_poll(
    federation: Federation,
) -> None:
    credential, _ = joined(federation, "long-poll")
    with federation.channel(credential) as channel:
        reply = stubs.ExchangeStub(channel).Take(wire.TakeRequest(), timeout=5)
    assert reply.studies_revision > 0
    assert federation.hub.coordinator.engine.node_of("long-poll")


def test_an_invitation_is_good_once(federation: Federation) -> None:
    invitation, bootstrap = invite(federation, "delta")
    first, other = Asking.make("delta"), Asking.make("delta")
    assert join(federation, bootstrap, first.signed("delta", invitation)).code == ""
    assert join(federation, bootstrap, other.signed("delta", invitation)).code == "invitation-used"
    assert federation.hub.coordinator.registry.sites["delta"].signing_key == first.key.public


def test_a_join_whose_answer_was_lost_may_be_repeated_with_the_same_keys(
    federation: Federation,
) -> None:
    invitation, bootstrap = invite(federation, "epsilon")
    asking = Asking.make("epsilon")
    signed = asking.signed("epsilon", invitation)
    assert join(federation, bootstrap, signed).code == ""
    again = join(federation, bootstrap, signed)
    assert list_studies(federation, Credential(again.certificate, asking.private)).revision > 0


def test_an_invitation_admits_its_own_site_only(federation: Federation) -> None:
    invitation, bootstrap = invite(federation, "zeta")
    signed = Asking.make("alpha").signed("alpha", invitation)
    assert join(federation, bootstrap, signed).code == "invitation-other-site"


def test_a_newer_invitation_takes_the_place_of_an_unused_one(federation: Federation) -> None:
    invitation, bootstrap = invite(federation, "eta")
    invite(federation, "eta")
    signed = Asking.make("eta").signed("eta", invitation)
    assert refused(lambda: join(federation, bootstrap, signed)) == NOBODY


def test_an_invitation_s_credential_may_join_and_nothing_else(federation: Federation) -> None:
    _, bootstrap = invite(federation, "theta")
    with federation.channel(bootstrap) as channel:
        exchange, studies = stubs.ExchangeStub(channel), stubs.StudiesStub(channel)
        control, enrolment = stubs.ControlStub(channel), stubs.EnrolmentStub(channel)
        calls: list[Callable[[], Any]] = [
            lambda: exchange.Take(wire.TakeRequest(), timeout=5),
            lambda: next(exchange.Fetch(wire.FetchRequest(), timeout=5)),
            lambda: studies.List(wire.ListStudiesRequest(), timeout=5),
            lambda: studies.Answer(wire.AnswerRequest(), timeout=5),
            lambda: control.Members(wire.MembersRequest(json="{}"), timeout=5),
            lambda: enrolment.Renew(wire.RenewCall(), timeout=5),
            lambda: HealthStub(channel).Check(HealthCheckRequest(), timeout=5),
        ]
        assert {refused(call) for call in calls} == {DENIED}


def test_members_and_operators_may_not_join(federation: Federation) -> None:
    for credential in (federation.folder.sites["alpha"][0], federation.folder.operator):
        signed = Asking.make("alpha").signed("alpha")
        assert refused(lambda c=credential, s=signed: join(federation, c, s)) == DENIED


def test_an_invitation_of_a_foreign_authority_cannot_connect(federation: Federation) -> None:
    foreign = issue_client(make_authority("foreign", now=NOW), "iota", now=NOW)
    signed = Asking.make("iota").signed("iota")
    assert refused(lambda: join(federation, foreign, signed))[0] is grpc.StatusCode.UNAVAILABLE


def test_failed_joins_are_counted_and_limited(federation: Federation) -> None:
    invitation, bootstrap = invite(federation, "kappa")
    bad = Asking.make("kappa").signed("kappa", "0" * 32)
    sample = ("larrey_auth_failures_total", {"reason": "bad_invitation"})
    registry = federation.hub.metrics.registry
    before = registry.get_sample_value(*sample) or 0
    codes = [join(federation, bootstrap, bad).code for _ in range(11)]
    assert codes == ["invitation-unknown"] * 10 + ["too-many-attempts"]
    assert registry.get_sample_value(*sample) == before + 11
    good = Asking.make("kappa").signed("kappa", invitation)
    assert join(federation, bootstrap, good).code == "too-many-attempts"


def test_a_site_renews_with_a_new_key_and_both_are_good_for_a_while(
    federation: Federation,
) -> None:
    old, key = federation.folder.sites["alpha"]
    asking = Asking.make("alpha", key)
    reply = renew(federation, old, asking.signed("alpha"))
    assert reply.authority == federation.folder.authority.certificate
    new = Credential(reply.certificate, asking.private)
    assert list_studies(federation, new).revision == list_studies(federation, old).revision
    again = Asking.make("alpha", key)
    assert renew(federation, new, again.signed("alpha")).code == "renewed-lately"


def test_a_certificate_is_renewed_only_under_the_site_s_signing_key(
    federation: Federation,
) -> None:
    beta, key = federation.folder.sites["beta"]
    assert renew(federation, beta, Asking.make("beta").signed("beta")).code == "wrong-signer"
    other = Asking.make("alpha", key).signed("alpha")
    assert renew(federation, beta, other).code == "wrong-signer"


def test_keys_of_another_member_are_not_taken(federation: Federation) -> None:
    invitation, bootstrap = invite(federation, "lambda")
    stolen = Asking.make("lambda", federation.folder.sites["beta"][1])
    assert join(federation, bootstrap, stolen.signed("lambda", invitation)).code == "key-taken"


def test_a_revoked_site_s_open_calls_end_and_it_gets_in_no_more(federation: Federation) -> None:
    credential, _ = joined(federation, "mu")
    ended = threading.Event()
    with federation.channel(credential) as channel:
        seen = list_studies(federation, credential).revision
        poll = stubs.ExchangeStub(channel).Take.future(wire.TakeRequest(studies_seen=seen))
        poll.add_done_callback(lambda _: ended.set())
        until(lambda: "site mu" in federation.hub.gatekeeper.calls())
        started = time.monotonic()
        with federation.operator() as operator:
            assert operator.members({"verb": "revoke", "site": "mu"})["state"] == "revoked"
        assert ended.wait(5)
        assert time.monotonic() - started < 5  # the promise is 60 s
        assert poll.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAUTHENTICATED}
    assert refused(lambda: list_studies(federation, credential)) == NOBODY
    until(lambda: "site mu" not in federation.hub.gatekeeper.calls())


def test_a_member_is_not_invited_again(federation: Federation) -> None:
    with pytest.raises(Refusal) as caught:
        invite(federation, "beta")
    assert caught.value.code == "already-member"


def test_a_restart_keeps_members_and_revocations(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path / "folder")
    settings = with_authority(folder, tmp_path / "state")
    first = Federation(folder, Hub(settings))
    credential, _ = joined(first, "gamma")
    with first.operator() as operator:
        operator.members({"verb": "revoke", "site": "alpha"})  # of coordinator.toml
    first.hub.stop()
    second = Federation(folder, Hub(settings))
    try:
        assert list_studies(second, credential).revision > 0
        alpha = folder.sites["alpha"][0]
        assert refused(lambda: list_studies(second, alpha)) == NOBODY
        invitation, bootstrap = invite(second, "alpha")  # it may be invited anew
        signed = Asking.make("alpha").signed("alpha", invitation)
        assert join(second, bootstrap, signed).code == ""
        assert refused(lambda: list_studies(second, alpha)) == NOBODY  # its old key stays out
    finally:
        second.hub.stop()
