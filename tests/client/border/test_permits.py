"""Rosters, keys and permits come through the coordinator, which can add nothing to them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.consortium import is_entitled, permit_chains, trusted_keys, trusted_rosters
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.decisions import PolicySignature
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person
from larrey_protocol.permit import Countersignature, Permit
from larrey_protocol.roster import KeyChange, Roster
from larrey_protocol.signed import Signed, open_signed, sign
from larrey_protocol.tomlfile import Record
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve, audit_of, held
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import make_permit, make_roster

TODAY = dt.datetime.now(dt.UTC).date()
OTHER = SigningKey.generate()


def next_permit(peer: Peer, pki: Pki, state: str, **changes: object) -> Signed:
    """Return the version after the newest that the peer has."""
    newest = Signed.from_bytes(peer.permits[-1])
    before = open_signed(newest, Permit, pki.consortium.public)
    permit = make_permit(**changes)
    head = {"version": before.permit.version + 1, "state": state, "previous": newest.digest}
    return sign(
        permit.model_copy(update={"permit": permit.permit.model_copy(update=head)}),
        pki.consortium,
    )


def arrives(agent: Agent, peer: Peer, **documents: bytes) -> None:
    """Pass documents on and wait until the site has judged them."""
    before = len(audit_of(agent))
    peer.tell(**documents)
    wait_until(lambda: len(audit_of(agent)) > before)


def code(peer: Peer) -> str:
    return str(peer.request(peer.first_task(STUDY)).fields["code"])


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (make_roster(OTHER.public, version=1), "roster-stale"),
        (make_roster(OTHER.public, version=0), "roster-stale"),
        (PolicySignature(site="alpha", version=1, policy=digest_bytes(b""), person="ada", at=1.0),
         "wrong-document"),
    ],
)  # fmt: skip
def test_a_roster_that_does_not_follow_is_put_on_record_and_dropped(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve, document: Record, expected: str
) -> None:
    approve(agent, STUDY)
    arrives(agent, peer, rosters=sign(document, pki.consortium).to_bytes())
    assert ("document-rejected", expected) in audit_of(agent)
    assert code(peer) == ""


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff" * 100, b'{"kind": "roster"}'])
def test_noise_is_put_on_record_once_and_the_node_serves(
    agent: Agent, peer: Peer, approve: Approve, data: bytes
) -> None:
    approve(agent, STUDY)
    arrives(agent, peer, rosters=data, permits=data)
    peer.tell(rosters=data)
    assert code(peer) == ""
    assert audit_of(agent).count(("document-rejected", "malformed-document")) == 1


def test_a_roster_or_permit_that_the_coordinator_made_up_is_not_kept(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    forged = make_roster(OTHER.public, Person(name="eve", role="lead", key=OTHER.public), version=9)
    arrives(agent, peer, rosters=sign(forged, OTHER).to_bytes())
    arrives(agent, peer, permits=sign(make_permit(permit__reference="x/9"), OTHER).to_bytes())
    assert audit_of(agent).count(("document-rejected", "wrong-signer")) == 2
    assert agent.node.cases.dossier.roster.version == 1
    assert code(peer) == ""


def test_a_permit_version_out_of_line_is_not_kept(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    again = sign(make_permit(rules__dpia="dpia 2"), pki.consortium)
    arrives(agent, peer, permits=again.to_bytes())
    assert ("document-rejected", "permit-chain-broken") in audit_of(agent)


def test_a_revoked_permit_stops_the_next_request(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    assert code(peer) == ""
    arrives(agent, peer, permits=next_permit(peer, pki, "REVOKED").to_bytes())
    assert code(peer) == "permit-revoked"


def test_a_permit_that_has_ended_stops_the_next_request(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    over = {"use__valid_from": TODAY, "use__valid_until": TODAY}
    shorter = next_permit(peer, pki, "AMENDED", **over)
    arrives(agent, peer, permits=shorter.to_bytes())
    assert code(peer) == "permit-not-countersigned"  # the officer has not read it
    pki.people.countersign(agent, "test/1")
    assert code(peer) == "permit-changed"  # nor has anybody approved under it


def test_an_amended_permit_needs_both_again_and_the_hold_stays(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    before = held(agent).entry.seq
    arrives(agent, peer, permits=next_permit(peer, pki, "AMENDED", rules__dpia="dpia 2").to_bytes())
    with pytest.raises(LarreyError, match="permit-not-countersigned"):
        pki.people.approve(agent, STUDY, pki.people.it)
    pki.people.countersign(agent, "test/1")
    made = [pki.people.approve(agent, STUDY, k) for k in (pki.people.it, pki.people.dpo)]
    assert [one["decision"] for one in made] == ["waiting", "approved"]
    assert code(peer) == ""
    assert (held(agent).entry.seq, held(agent).is_closed) == (before, False)
    agent.desk.send_decisions()
    assert len(peer.answers) == 2


def test_another_key_of_another_site_needs_a_new_approval(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    moved = make_roster(pki.signing.public, version=2, beta=OTHER.public)
    arrives(agent, peer, rosters=sign(moved, pki.consortium).to_bytes())
    assert code(peer) == "roster-changed"
    for key in (pki.people.it, pki.people.dpo):
        pki.people.approve(agent, STUDY, key)
    assert code(peer) == ""


def test_a_roster_that_changes_other_sites_alone_changes_nothing(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    same = make_roster(pki.signing.public, Person(name="eve", role="member", key=OTHER.public),
                       version=2)  # fmt: skip
    arrives(agent, peer, rosters=sign(same, pki.consortium).to_bytes())
    assert code(peer) == ""


def test_a_new_consortium_key_is_followed_if_the_old_one_signed_it(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    new = SigningKey.generate()
    foreign = KeyChange(old=OTHER.public, new=new.public, at=1.0)
    arrives(agent, peer, rosters=sign(foreign, OTHER).to_bytes())
    assert ("document-rejected", "wrong-signer") in audit_of(agent)
    change = KeyChange(old=pki.consortium.public, new=new.public, at=1.0)
    arrives(agent, peer, rosters=sign(change, pki.consortium).to_bytes())
    assert ("key-changed", "") in audit_of(agent)
    assert agent.node.cases.dossier.keys == (pki.consortium.public, new.public)
    late = make_roster(pki.signing.public, version=2)
    arrives(agent, peer, rosters=sign(late, pki.consortium).to_bytes())
    assert agent.node.cases.dossier.roster.version == 1  # the old key signs nothing new
    arrives(agent, peer, rosters=sign(late, new).to_bytes())
    assert agent.node.cases.dossier.roster.version == 2
    assert code(peer) == ""  # what the old key had signed stays signed


def test_a_key_change_that_names_another_key_or_leads_back_is_not_kept(
    agent: Agent, peer: Peer, pki: Pki
) -> None:
    for change in (
        KeyChange(old=OTHER.public, new=SigningKey.generate().public, at=1.0),
        KeyChange(old=pki.consortium.public, new=pki.consortium.public, at=1.0),
    ):
        arrives(agent, peer, rosters=sign(change, pki.consortium).to_bytes())
    assert audit_of(agent).count(("document-rejected", "wrong-signer")) == 2
    with agent.node.store.reading() as records:
        assert records.documents("keychange") == []


def test_key_changes_form_one_chain_whatever_else_is_kept() -> None:
    one, two, three = (SigningKey.generate() for _ in range(3))

    def change(old: SigningKey, new: SigningKey, by: SigningKey) -> Signed:
        return sign(KeyChange(old=old.public, new=new.public, at=1.0), by)

    kept = [change(two, three, two), change(one, two, one), change(one, three, one)]
    assert trusted_keys(one.public, kept) == (one.public, two.public, three.public)
    assert trusted_keys(one.public, [change(one, two, two)]) == (one.public,)
    circle = [change(one, two, one), change(two, one, two)]
    assert trusted_keys(one.public, circle) == (one.public, two.public)


def test_what_other_keys_signed_does_not_count_among_the_kept() -> None:
    root, stranger = SigningKey.generate(), SigningKey.generate()
    lead = Person(name="ada", role="lead", key=OTHER.public)
    roster = make_roster(stranger.public, lead, version=1)
    rosters = trusted_rosters((root.public,), [sign(roster, root), sign(roster, stranger)])
    assert [one.version for one in rosters] == [0, 1]
    permits = [sign(make_permit(), key) for key in (OTHER, stranger)]
    chains = permit_chains((root.public,), rosters, permits)
    assert [digest for digest, _ in chains["test/1"]] == [permits[0].digest]
    assert not is_entitled(OTHER.public, "launch", (), (Roster(version=1, issued_at=0.0),))


def test_only_the_officer_countersigns_and_only_the_newest_version(
    agent: Agent, peer: Peer, pki: Pki, approve: Approve
) -> None:
    approve(agent, STUDY)
    with pytest.raises(LarreyError, match="role-not-allowed"):
        pki.people.countersign(agent, "test/1", pki.people.it)
    arrives(agent, peer, permits=next_permit(peer, pki, "RENEWED").to_bytes())
    stale = Countersignature(
        permit=Signed.from_bytes(peer.permits[0]).digest, document=digest_bytes(b""),
        site="alpha", person="dora", at=1.0,
    )  # fmt: skip
    from larrey_client.signing import countersign

    with pytest.raises(LarreyError, match="permit-differs"):
        countersign(agent.node.store, agent.node.settings, sign(stale, pki.people.dpo))


def test_a_permit_is_listed_shown_and_countersigned_with_the_document(
    agent: Agent,
    peer: Peer,
    pki: Pki,
    site_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    peer.tell(
        rosters=sign(make_roster(pki.signing.public), pki.consortium).to_bytes(),
        permits=sign(make_permit(), pki.consortium).to_bytes(),
    )
    wait_until(lambda: ("permit-received", "") in audit_of(agent))
    key, document = site_file.parent / "dpo.key", site_file.parent / "permit.pdf"
    pki.people.dpo.save(key)
    document.write_bytes(b"the authority's words")

    def site(*words: str) -> str:
        assert main(["permit", *words, "--config", str(site_file)]) == 0
        return capsys.readouterr().out

    assert site("list").endswith("NO\n")
    assert "NOT countersigned" in site("show", "test/1")
    signed = site("countersign", "test/1", "--document", str(document), "--key", str(key))
    assert digest_bytes(b"the authority's words") in signed
    assert site("list").endswith("yes\n")
    assert main(["permit", "show", "x/1", "--config", str(site_file)]) == 2
