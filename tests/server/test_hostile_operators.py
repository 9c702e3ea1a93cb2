"""What neither an operator without a personal key nor a person alone brings about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from larrey_protocol.canonical import short
from larrey_protocol.certificates import Credential
from larrey_protocol.decisions import Order
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.orders import open_order
from larrey_protocol.people import Person
from larrey_protocol.permit import Permit
from larrey_protocol.signed import Certificate, Proposal, Signed, sign
from larrey_server.journal import StudyRow
from larrey_server.orders import Given, Present, require_sensible
from larrey_server.release import Bundle, verify_bundle
from larrey_server.serve import Hub
from tests.protocol.samples import study
from tests.server.asking import Asking
from tests.server.peers import Federation, Folder, SitePeer, until
from tests.server.test_membership import invite, join, with_authority

MODEL = "sha256:" + "b" * 64


@pytest.fixture
def inviting(tmp_path: Path) -> Iterator[Federation]:
    """Give a coordinator that can invite."""
    folder = Folder.make(tmp_path / "folder")
    hub = Hub(with_authority(folder, tmp_path / "state"))
    yield Federation(folder, hub)
    hub.stop()


def order(number: int, verb: str, of: str, person: str = "ada", subject: str = "") -> Order:
    fields = {"study": of, "number": number, "verb": verb, "person": person, "at": 5.0}
    return Order.model_validate(fields | {"subject": subject})


def launched(federation: Federation) -> str:
    digest = federation.propose(study())
    for name in ("alpha", "beta"):
        with federation.site(name) as site:
            assert site.approve(digest).recorded
    federation.launch(digest)
    return digest


def impostor(federation: Federation, name: str) -> SitePeer:
    """Let an operator put somebody else in a site's place."""
    federation.hub.coordinator.membership.revoke(name, "operator")
    invitation, bootstrap = invite(federation, name)
    asking = Asking.make(name)
    reply = join(federation, bootstrap, asking.signed(name, invitation))
    credential = Credential(reply.certificate, asking.private)
    authority = federation.folder.authority.certificate
    return SitePeer(name, federation.hub.address, authority, credential, asking.key)


def test_a_member_whose_key_is_not_on_the_roster_approves_nothing(inviting: Federation) -> None:
    digest = inviting.propose(study())
    with inviting.site("beta") as beta, impostor(inviting, "alpha") as other:
        assert beta.approve(digest).recorded
        other.approve(digest)
        with pytest.raises(Refusal, match="not-enough-approvals"):
            inviting.launch(digest)
    answers = inviting.hub.coordinator.book.answers(digest)
    assert (answers.approved, answers.outdated) == (("beta",), ("alpha",))


def test_a_site_that_is_gone_when_a_study_starts_is_not_asked(federation: Federation) -> None:
    digest = federation.propose(study(rounds__quorum=1))
    with federation.site("beta") as beta:
        assert beta.approve(digest).recorded
    coordinator = federation.hub.coordinator
    coordinator.membership.revoke("alpha", "operator")  # after the launch was judged
    coordinator.commander.start(coordinator.book.find(digest), ("alpha", "beta"), 1)
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["state"] == "open")
        codes = {site["site"]: site["code"] for site in operator.find(digest)["sites"]}
    assert codes == {"alpha": "membership-ended", "beta": ""}


def test_a_person_with_a_new_key_does_not_release_what_they_launched() -> None:
    given = Given(order(1, "launch", MODEL), "old key of ada")
    present = Present("heart", "ended", "", ("alpha",), MODEL, (given,))
    release = order(2, "release", MODEL, subject=MODEL)
    with pytest.raises(Refusal, match="duties-not-separate"):
        require_sensible(release, "new key of ada", present)


def test_the_consortium_s_key_does_not_speak_in_a_person_s_name(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path)
    key, roster = folder.consortium, folder.roster()
    signed = sign(order(1, "halt", MODEL, person="ben"), key)
    with pytest.raises(IntegrityError, match="wrong-signer"):
        open_order(signed, consortium=key.public, roster=roster, after=0)
    own = sign(order(1, "halt", MODEL, person="consortium"), key)
    assert open_order(own, consortium=key.public, roster=roster, after=0).person == "consortium"


def amend(federation: Federation, **changes: object) -> None:
    """Sign and send the next version of the permit."""
    coordinator = federation.hub.coordinator
    newest = coordinator.book.law.newest("test/1")
    assert newest is not None
    own = {"permit__version": newest[1].permit.version + 1, "permit__previous": newest[0]}
    state = {"permit__state": "AMENDED"}
    permit = federation.folder.permit("test/1", **(own | state | changes))
    coordinator.take_permit(sign(permit, federation.folder.consortium))


def test_nobody_resumes_what_the_permit_does_not_carry_any_more(federation: Federation) -> None:
    digest = launched(federation)
    amend(federation, datasets=[{"site": "alpha", "dataset": "tiny"}])
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["stop"] == "halt")
        for name in ("alpha", "beta"):  # one of them lies
            with federation.site(name) as site:
                site.approve(digest)
        with pytest.raises(Refusal, match="site-not-permitted"):
            operator.command(digest, "resume")
        amend(federation, permit__state="REVOKED")
        with pytest.raises(Refusal, match="permit-revoked"):
            operator.command(digest, "resume")
        assert operator.find(digest)["order"] == 1  # the launch


def test_a_study_whose_short_digest_is_another_s_is_not_taken(federation: Federation) -> None:
    wanted = study()
    federation.vouch("test/1")
    twin = StudyRow(f"sha256:{short(wanted.digest):0<64}", "other", b"", "ended", 1.0)
    federation.hub.coordinator.journal.propose(twin, "operator")
    proposal = sign(Proposal(study=wanted, proposed_at=0.0), federation.folder.ada)
    with pytest.raises(Refusal, match="digest-too-near"):
        federation.hub.coordinator.book.propose(proposal)


def test_a_model_that_was_not_applied_is_not_given_out(federation: Federation) -> None:
    digest = launched(federation)
    coordinator = federation.hub.coordinator
    row = coordinator.book.find(digest)
    until(lambda: coordinator.checkpoint(row, 0).is_file())
    left = coordinator.checkpoint(row, 0).with_name("round-0001.safetensors")
    left.write_bytes(b"of an attempt that was halted while its model was made")
    with pytest.raises(Refusal, match="no-such-round"):
        coordinator.checkpoint(row, 1)
    assert coordinator.checkpoint(row, -1) == coordinator.checkpoint(row, 0)


def bundle(folder: Folder, permit: Permit, launcher: SigningKey, releaser: str = "ben") -> Bundle:
    """Return a bundle in which every signature is good."""
    wanted = study()
    paper = Certificate(
        study=wanted.digest, name="tiny", outcome="COMPLETE", rounds_planned=3, rounds_applied=3,
        sites=wanted.file.site_names, matrix=(), model=MODEL, audit_head="1:", ended_at=1.0,
    )  # fmt: skip
    people = (*folder.roster().people, Person(name="ada", role="member", key=launcher.public))
    roster = folder.roster().model_copy(update={"people": people})
    key = folder.ben if releaser == "ben" else folder.ada
    documents: tuple[Signed, ...] = (
        sign(roster, folder.consortium),
        sign(permit, folder.consortium),
        sign(Proposal(study=wanted, proposed_at=0.0), folder.ada),
        sign(order(1, "launch", wanted.digest), launcher),
        sign(order(2, "release", wanted.digest, releaser, MODEL), key),
        sign(paper, SigningKey.generate()),
    )
    return Bundle(documents=documents)


def test_a_bundle_holds_with_a_person_s_second_key(tmp_path: Path) -> None:
    folder = Folder.make(tmp_path)
    made = bundle(folder, folder.permit(), SigningKey.generate())
    assert verify_bundle(made, folder.consortium.public)["launched_by"] == "ada"


@pytest.mark.parametrize(
    ("changes", "releaser", "code"),
    [
        ({}, "ada", "duties-not-separate"),
        ({"use__purposes": ["education"]}, "ben", "purpose-not-permitted"),
        ({"datasets": [{"site": "alpha", "dataset": "tiny"}]}, "ben", "site-not-permitted"),
        ({"use__people": ["ada"]}, "ben", "person-not-permitted"),
        ({"use__people": ["ben"]}, "ben", "person-not-permitted"),
    ],
)
def test_a_bundle_proves_that_the_permit_let_it_be(
    tmp_path: Path, changes: dict[str, object], releaser: str, code: str
) -> None:
    folder = Folder.make(tmp_path)
    made = bundle(folder, folder.permit(**changes), SigningKey.generate(), releaser)
    with pytest.raises(LarreyError, match=code):
        verify_bundle(made, folder.consortium.public)


def test_who_the_permit_does_not_name_releases_nothing(federation: Federation) -> None:
    present = federation.propose(study())
    coordinator = federation.hub.coordinator
    amend(federation, use__people=["ada"])
    with pytest.raises(Refusal, match="person-not-permitted"):
        coordinator.book.require_named(present, federation.folder.ben.public)
    coordinator.book.require_named(present, federation.folder.ada.public)
