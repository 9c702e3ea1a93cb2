"""Permits at the coordinator: who may sign, what they allow, what ends with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from larrey_protocol.errors import IntegrityError, Refusal
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, sign
from larrey_protocol.v1 import larrey_pb2 as wire
from larrey_server.journal import Journal
from larrey_server.lawbook import LawBook
from larrey_server.permits import amended, first, history, opened, revoked
from tests.protocol.permits import ADA, BEN, CONSORTIUM, DAY, following, permit, roster
from tests.protocol.samples import study
from tests.server.peers import Federation, SitePeer, until

LATER = 1_900_000_000.0  # 2030, in seconds since 1970


def book(folder: Path, clock: float = 0.0) -> LawBook:
    law = LawBook(Journal.open(folder / "j.db"), CONSORTIUM.public, lambda: clock)
    law.take_roster(sign(roster(), CONSORTIUM))
    return law


def changed(federation: Federation, reference: str = "test/1", **changes: Any) -> Signed:
    """Return the next version of a permit of the test's federation, signed by its lead."""
    document, known = federation.hub.coordinator.book.law.newest(reference) or ("", None)
    assert known is not None
    own = {
        "permit__version": known.permit.version + 1,
        "permit__previous": document,
        "permit__state": "AMENDED",
    }
    return sign(federation.folder.permit(reference, **(own | changes)), federation.folder.ada)


def put(federation: Federation, signed: Signed) -> None:
    federation.hub.coordinator.take_permit(signed)


@pytest.mark.parametrize("key", [CONSORTIUM, ADA])
def test_the_consortium_and_its_leads_sign_permits(tmp_path: Path, key: SigningKey) -> None:
    law = book(tmp_path)
    assert law.take_permit(sign(permit(), key)) == permit()
    assert law.newest("test/1") == (sign(permit(), key).digest, permit())


def test_a_member_signs_no_permit(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="role-not-allowed"):
        book(tmp_path).take_permit(sign(permit(), BEN))


def test_a_strangers_permit_is_not_kept(tmp_path: Path) -> None:
    law = book(tmp_path)
    with pytest.raises(IntegrityError, match="wrong-signer"):
        law.take_permit(sign(permit(), SigningKey.generate()))
    assert law.newest("test/1") is None


def test_every_version_is_kept_over_a_restart_and_none_twice(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j.db")
    law = LawBook(journal, CONSORTIUM.public, lambda: 0.0)
    granted = sign(permit(), CONSORTIUM)
    second = sign(following(granted), CONSORTIUM)
    for signed in (granted, second, second, granted):
        law.take_permit(signed)
    again = LawBook(journal, CONSORTIUM.public, lambda: 0.0)
    assert again.versions("test/1") == law.versions("test/1")
    assert [digest for digest, _ in again.versions("test/1")] == [granted.digest, second.digest]
    actions = [record.action for record in journal.audit()]
    assert actions == ["permit-granted", "permit-amended"]


def test_versions_do_not_fork(tmp_path: Path) -> None:
    law, granted = book(tmp_path), sign(permit(), CONSORTIUM)
    law.take_permit(granted)
    law.take_permit(sign(following(granted), CONSORTIUM))
    fork = following(granted, permit__state="REVOKED")
    with pytest.raises(IntegrityError, match="permit-chain-broken"):
        law.take_permit(sign(fork, CONSORTIUM))


def test_the_trail_names_who_signed_and_not_whose_connection_it_was(
    federation: Federation,
) -> None:
    digest = federation.propose(study())
    with federation.operator() as operator:
        operator.put_permit(changed(federation))
    records = list(federation.hub.coordinator.journal.audit())
    signed = [(r.actor, r.action) for r in records if r.action != "permit-granted"]
    assert signed[0] == ("consortium", "roster-signed")
    assert ("ada", "permit-amended") in signed
    proposed = next(r for r in records if r.study == digest)
    assert (proposed.actor, proposed.action) == ("ada", "study-proposed")


def test_a_permits_state_follows_the_clock(tmp_path: Path) -> None:
    law = book(tmp_path, LATER)
    law.take_permit(sign(permit(), CONSORTIUM))
    assert law.state("test/1") == "EXPIRED"
    assert law.state("test/2") == "UNKNOWN"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"use__purposes": ["education"]}, "purpose-not-permitted"),
        ({"use__people": ["ben"]}, "person-not-permitted"),
        ({"use__valid_until": "2021-01-01"}, "permit-expired"),
        ({"use__valid_from": "2098-01-01"}, "permit-not-yet-valid"),
        ({"permit__state": "REVOKED"}, "permit-revoked"),
        ({"datasets": [{"site": "alpha", "dataset": "tiny"}]}, "site-not-permitted"),
    ],
)
def test_a_proposal_that_its_permit_does_not_cover_is_refused(
    federation: Federation, changes: dict[str, Any], code: str
) -> None:
    put(federation, changed(federation, **changes))
    with federation.operator() as operator, pytest.raises(Refusal, match=code):
        operator.propose(study())


def test_a_proposal_under_no_permit_is_refused(federation: Federation) -> None:
    with federation.operator() as operator, pytest.raises(Refusal, match="permit-unknown"):
        operator.propose(study(study__permit="test/none"))


def test_a_member_does_not_propose(federation: Federation) -> None:
    with federation.operator("ben") as operator, pytest.raises(Refusal, match="role-not-allowed"):
        operator.propose(study())


def test_a_launch_after_the_permits_end_is_refused(federation: Federation) -> None:
    digest = approved(federation)
    put(federation, changed(federation, permit__state="REVOKED"))
    with federation.operator() as operator, pytest.raises(Refusal, match="permit-revoked"):
        operator.launch(digest)


def test_an_amended_permit_makes_approvals_outdated(federation: Federation) -> None:
    digest = approved(federation)
    put(federation, changed(federation))
    with federation.operator() as operator:
        facts = operator.find(digest)
        assert (facts["approved"], facts["outdated"]) == ([], ["alpha", "beta"])
        with pytest.raises(Refusal, match=r"outdated.*alpha, beta.*not-enough-approvals"):
            operator.launch(digest)
        for name in ("alpha", "beta"):
            with federation.site(name) as site:
                assert site.approve(digest).recorded
        assert operator.find(digest)["approved"] == ["alpha", "beta"]


@pytest.mark.parametrize("part", ["permit", "seats"])
def test_an_approval_of_something_else_is_kept_and_does_not_count(
    federation: Federation, alpha: SitePeer, part: str
) -> None:
    digest = federation.propose(study())
    reply = alpha.approve(digest, **{part: "sha256:" + "0" * 64})
    assert (reply.recorded, reply.code) == (False, "approval-outdated")
    assert federation.hub.coordinator.book.answers(digest).outdated == ("alpha",)


def test_a_revoked_permit_halts_what_runs_under_it(federation: Federation) -> None:
    digest = approved(federation)
    federation.launch(digest)
    put(federation, changed(federation, permit__state="REVOKED"))
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["stop"] == "halt")


def test_an_amended_permit_halts_until_sites_approved_anew(federation: Federation) -> None:
    digest = approved(federation)
    federation.launch(digest)
    put(federation, changed(federation))
    with federation.operator() as operator:
        until(lambda: operator.find(digest)["stop"] == "halt")
        for name in ("alpha", "beta"):
            with federation.site(name) as site:
                assert site.approve(digest).recorded
        operator.command(digest, "resume")
        with federation.site("alpha") as alpha:
            assert alpha.answer(alpha.work(), study()).accepted
    actions = [(r.actor, r.action) for r in federation.hub.coordinator.journal.audit()]
    assert ("coordinator", "approval-outdated") in actions


@pytest.mark.parametrize("decision", ["", "refused"])
def test_a_study_is_not_resumed_before_its_sites_approved_anew(
    federation: Federation, decision: str
) -> None:
    digest = approved(federation)
    federation.launch(digest)
    put(federation, changed(federation))
    with federation.operator() as operator, federation.site("alpha") as alpha:
        until(lambda: operator.find(digest)["stop"] == "halt")
        if decision:
            assert alpha.approve(digest, decision, "permit-not-countersigned").recorded
        with pytest.raises(Refusal, match=r"0 sites approved.*not-enough-approvals.*study approve"):
            operator.command(digest, "resume")
        assert alpha.approve(digest).recorded
        with pytest.raises(Refusal, match=r"1 sites approved.*not-enough-approvals"):
            operator.command(digest, "resume")
        facts = operator.find(digest)
    assert (facts["stop"], facts["round"], facts["attempt"]) == ("halt", 1, 2)


def test_a_site_that_takes_no_part_does_not_count_for_a_resume(federation: Federation) -> None:
    digest = approved(federation)
    federation.launch(digest)
    with federation.operator() as operator, federation.site("alpha") as alpha:
        operator.command(digest, "halt")
        assert alpha.approve(digest, "revoked").recorded
        assert alpha.approve(digest).recorded  # too late: this run is done without it
        with pytest.raises(Refusal, match="not-enough-approvals"):
            operator.command(digest, "resume")


def test_a_site_that_takes_its_approval_back_is_not_asked_again(federation: Federation) -> None:
    digest = approved(federation)
    federation.launch(digest)
    with federation.site("alpha") as alpha, federation.operator() as operator:
        alpha.work()
        assert alpha.approve(digest, "revoked").recorded
        until(lambda: operator.find(digest)["state"] == "paused")  # two sites, quorum two
        facts = operator.find(digest)
        assert (facts["stop_code"], facts["applied"]) == ("too-few-sites", 0)
        assert facts["refused"] == {"alpha": "approval-revoked"}
        operator.command(digest, "close")
        certificate = json.loads(operator.certificate(digest).document)
    codes = {cell["site"]: cell["code"] for cell in certificate["matrix"]}
    assert codes["alpha"] == "approval-revoked"


def test_a_revoked_approval_does_not_count_before_launch(federation: Federation) -> None:
    digest = approved(federation)
    with federation.site("alpha") as alpha, federation.operator() as operator:
        assert alpha.approve(digest, "revoked").recorded
        with pytest.raises(Refusal, match="not-enough-approvals"):
            operator.launch(digest)


def test_a_site_is_told_all_versions_of_its_studies_permits_alone(
    federation: Federation, alpha: SitePeer
) -> None:
    federation.propose(study())
    put(federation, changed(federation))
    listed = alpha.studies.List(wire.ListStudiesRequest())
    permits = [Signed.from_bytes(data) for data in listed.permits]
    versions = federation.hub.coordinator.book.law.versions("test/1")
    assert [signed.digest for signed in permits] == [digest for digest, _ in versions]
    assert len(listed.rosters) == 1


def test_a_site_hears_of_a_new_version(federation: Federation, alpha: SitePeer) -> None:
    federation.propose(study())
    alpha.take()
    seen = federation.hub.coordinator.book.revision("alpha")
    put(federation, changed(federation))
    assert federation.hub.coordinator.book.revision("alpha") > seen


def test_only_longer_days_are_a_renewal() -> None:
    versions = opened([sign(permit(), CONSORTIUM)])
    longer = permit(use__valid_until="2027-06-30")
    assert amended(longer, versions).permit.state == "RENEWED"
    assert amended(permit(use__valid_until="2026-06-30"), versions).permit.state == "AMENDED"
    wider = permit(use__valid_until="2027-06-30", use__people=["ada", "ben", "eve"])
    assert amended(wider, versions).permit.state == "AMENDED"
    with pytest.raises(Refusal, match="permit-unchanged"):
        amended(permit(), versions)


def test_versions_and_previous_are_filled_in(tmp_path: Path) -> None:
    law, granted = book(tmp_path), sign(first(permit(), ()), ADA)
    law.take_permit(granted)
    second = sign(amended(permit(use__people=["ada"]), opened([granted])), ADA)
    law.take_permit(second)
    last = sign(revoked("test/1", opened([granted, second]), DAY), ADA)
    law.take_permit(last)
    rows = history(opened([granted, second, last]), roster(), CONSORTIUM.public, DAY)
    assert [(row["state"], row["stands"], row["signed_by"]) for row in rows] == [
        ("GRANTED", "REPLACED", "ada"),
        ("AMENDED", "REPLACED", "ada"),
        ("REVOKED", "REVOKED", "ada"),
    ]
    with pytest.raises(Refusal, match="permit-revoked"):
        amended(permit(), opened([granted, second, last]))


def test_an_expired_permit_says_so_in_its_history() -> None:
    late = DAY.replace(year=2031)
    rows = history(opened([sign(permit(), CONSORTIUM)]), roster(), CONSORTIUM.public, late)
    assert [(row["stands"], row["signed_by"]) for row in rows] == [("EXPIRED", "consortium")]


def approved(federation: Federation) -> str:
    digest = federation.propose(study())
    for name in ("alpha", "beta"):
        with federation.site(name) as site:
            assert site.approve(digest).recorded
    return digest
