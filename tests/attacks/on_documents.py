"""Attacks by documents that the coordinator passes on: forged, altered, old, huge or strange."""

from __future__ import annotations

import json

from larrey_client.stopping import resume, stop
from larrey_protocol.decisions import SiteOrder
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person
from larrey_protocol.roster import KeyChange
from larrey_protocol.signed import Signed, sign
from tests.attacks.catalogue import attack
from tests.attacks.stand import Site


def signed_text(kind: str, text: str, key: SigningKey) -> bytes:
    """Return any text as a document with a good signature."""
    signature = key.sign(b"larrey.v1." + kind.encode() + b"\n" + text.encode())
    made = Signed(kind=kind, document=text, signer=key.public, signature=signature)
    return made.to_bytes()


def proposal_with(site: Site, place: str, value: object) -> bytes:
    """Return a proposal, signed by the consortium's key, one of whose values is replaced."""
    document = json.loads(site.proposal(site.study()).document)
    *path, last = place.split(".")
    inner = document
    for name in path:
        inner = inner[name]
    inner[last] = value
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return signed_text("proposal", text, site.consortium)


@attack("proposal-forged")
def proposal_forged(site: Site) -> str:
    return site.tell(proposals=site.proposal(site.study(), SigningKey.generate()).to_bytes())


@attack("proposal-one-byte")
def proposal_one_byte(site: Site) -> str:
    signed = site.proposal(site.study())
    altered = signed.document.replace('"noise_multiplier":4.0', '"noise_multiplier":1.0')
    return site.tell(proposals=signed.model_copy(update={"document": altered}).to_bytes())


@attack("proposal-by-a-member")
def proposal_by_a_member(site: Site) -> str:
    return site.tell(proposals=site.proposal(site.study(), site.ben).to_bytes())


@attack("proposal-extra-key")
def proposal_extra_key(site: Site) -> str:
    return site.tell(proposals=proposal_with(site, "study.file.model.weights_url", "http://x/"))


@attack("proposal-not-canonical")
def proposal_not_canonical(site: Site) -> str:
    text = site.proposal(site.study()).document.replace(":", ": ")
    return site.tell(proposals=signed_text("proposal", text, site.consortium))


@attack("proposal-key-twice")
def proposal_key_twice(site: Site) -> str:
    text = site.proposal(site.study()).document
    twice = text.replace('"noise_multiplier":4.0', '"noise_multiplier":0.2,"noise_multiplier":4.0')
    return site.tell(proposals=signed_text("proposal", twice, site.consortium))


@attack("proposal-infinite")
def proposal_infinite(site: Site) -> str:
    document = json.loads(site.proposal(site.study()).document)
    document["study"]["file"]["privacy"]["clip"] = float("inf")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return site.tell(proposals=signed_text("proposal", text, site.consortium))


@attack("proposal-path-name")
def proposal_path_name(site: Site) -> str:
    codes = {
        site.tell(proposals=proposal_with(site, place, "../../etc/shadow"))
        for place in (
            "study.file.study.name", "study.file.study.permit", "study.file.model.name",
            "study.contract.contract.name", "study.file.study.parent",
        )
    }  # fmt: skip
    return ",".join(sorted(codes))


@attack("proposal-deep")
def proposal_deep(site: Site) -> str:
    depth = 100_000
    return site.tell(proposals=signed_text("proposal", "[" * depth + "]" * depth, site.consortium))


@attack("document-deep")
def document_deep(site: Site) -> str:
    return site.tell(rosters=b'{"kind":' * 50_000)


@attack("document-huge")
def document_huge(site: Site) -> str:
    return site.tell(permits=b"{" + b" " * (5 << 20))


@attack("list-huge")
def list_huge(site: Site) -> str:
    site.watch()
    site.peer.permits.append(b"x" * (17 << 20))
    site.peer.propose()
    try:
        return site.trouble("coordinator-busy")
    finally:
        site.peer.permits.clear()
        site.peer.propose()


@attack("documents-flood", alone=True)
def documents_flood(site: Site) -> str:
    """Ten thousand documents that no key signed: a hundred lines on record, then no more."""
    before = len(site.peer.received)
    junk = [b'{"kind":"permit","n":%d}' % number for number in range(10_000)]
    site.peer.permits += junk
    code = site.tell(proposals=b"junk")
    site.peer.forget()
    with site.node.node.store.reading() as records:
        lines = sum(1 for record in records.audit() if record.action == "document-rejected")
    assert lines <= 100
    assert len(site.peer.received) - before < 100
    return code


@attack("kind-swapped")
def kind_swapped(site: Site) -> str:
    study = site.propose(site.study())
    return site.tell(permits=site.order(study).to_bytes())


@attack("lead-minted")
def lead_minted(site: Site) -> str:
    """A roster of the coordinator's own with a lead of its own."""
    key = SigningKey.generate()
    roster = site.roster(version=9)
    lead = Person(name="mallory", role="lead", key=key.public)
    minted = roster.model_copy(update={"people": (*roster.people, lead)})
    code = site.tell(rosters=sign(minted, key).to_bytes())
    assert site.tell(proposals=site.proposal(site.study(), key).to_bytes()) == code
    return code


@attack("sybil-sites")
def sybil_sites(site: Site) -> str:
    roster = site.roster(version=9)
    seat = roster.sites[1]
    made = [
        seat.model_copy(update={"name": f"sybil-{n}", "key": SigningKey.generate().public})
        for n in range(20)
    ]
    full = roster.model_copy(update={"sites": (*roster.sites, *made)})
    return site.tell(rosters=sign(full, site.ada).to_bytes())  # a lead may not sign rosters


@attack("roster-replayed", alone=True)
def roster_replayed(site: Site) -> str:
    old = sign(site.roster(version=2, beta=SigningKey.generate().public), site.consortium)
    site.tell(rosters=sign(site.roster(version=3), site.consortium).to_bytes())
    site.watch()
    return site.tell(rosters=old.to_bytes())


@attack("key-change-forged")
def key_change_forged(site: Site) -> str:
    new = SigningKey.generate()
    change = KeyChange(old=site.consortium.public, new=new.public, at=1.0)
    code = site.tell(rosters=sign(change, new).to_bytes())
    assert site.tell(proposals=site.proposal(site.study(), new).to_bytes()) == code
    return code


@attack("key-change-by-a-lead")
def key_change_by_a_lead(site: Site) -> str:
    change = KeyChange(old=site.ada.public, new=SigningKey.generate().public, at=1.0)
    return site.tell(rosters=sign(change, site.ada).to_bytes())


@attack("order-forged")
def order_forged(site: Site) -> str:
    study = site.approve(site.propose(site.study()))
    site.watch()
    forged = site.order(study, key=SigningKey.generate())
    return site.tell(orders=forged.to_bytes())


@attack("order-without-right")
def order_without_right(site: Site) -> str:
    study = site.approve(site.propose(site.study()))
    site.watch()
    return site.tell(orders=site.order(study, key=site.olga, person="olga").to_bytes())


@attack("order-as-another")
def order_as_another(site: Site) -> str:
    study = site.approve(site.propose(site.study()))
    site.watch()
    return site.tell(orders=site.order(study, key=site.ben, person="ada").to_bytes())


@attack("order-replayed")
def order_replayed(site: Site) -> str:
    study = site.running()
    held_back = site.order(study, "resume")
    site.tell(orders=site.order(study, "halt").to_bytes())
    site.watch()
    return site.tell(orders=held_back.to_bytes())


@attack("halt-shut-out")
def halt_shut_out(site: Site) -> str:
    """A forged copy of an order, shown first, does not shut the true one out."""
    study = site.running()
    true = site.order(study, "halt")
    forged = true.model_copy(update={"signature": site.order(study, "halt").signature})
    site.watch()
    assert site.tell(orders=forged.to_bytes()) == "bad-signature"
    site.tell(orders=true.to_bytes())
    return site.ask(study)


@attack("order-of-another-study")
def order_of_another_study(site: Site) -> str:
    """A launch of one study does not launch another."""
    one, other = (site.approve(site.propose(site.study())) for _ in range(2))
    site.launch(one)
    site.watch()
    return site.ask(other)


@attack("approval-by-the-coordinator")
def approval_by_the_coordinator(site: Site) -> str:
    study = site.propose(site.study())
    return site.refused(
        lambda: site.people.approve(site.node, study, SigningKey.generate(), dataset="heart")
    )


@attack("approval-by-the-auditor")
def approval_by_the_auditor(site: Site) -> str:
    study = site.propose(site.study())
    return site.refused(
        lambda: site.people.approve(site.node, study, site.axel, person="axel", dataset="heart")
    )


@attack("approval-of-another-site")
def approval_of_another_site(site: Site) -> str:
    study = site.propose(site.study())
    return site.refused(
        lambda: site.people.approve(site.node, study, site.people.dpo, site="beta", dataset="heart")
    )


@attack("approval-by-one-person")
def approval_by_one_person(site: Site) -> str:
    study = site.propose(site.study())
    for _ in range(2):
        site.people.approve(site.node, study, site.people.dpo, dataset="heart")
    site.launch(study)
    site.watch()
    return site.ask(study)


@attack("approval-of-an-old-permit")
def approval_of_an_old_permit(site: Site) -> str:
    study = site.propose(site.study())
    signed = site.people.approval(site.node, study, site.people.dpo, dataset="heart")
    site.tell(permits=site.amended(study, use__controllers=["Somebody Else"]).to_bytes())
    site.people.countersign(site.node, study.file.study.permit)
    return site.refused(lambda: site.node.approving.decide(signed))


@attack("approval-bytes-changed")
def approval_bytes_changed(site: Site) -> str:
    study, other = (site.propose(site.study()) for _ in range(2))
    signed = site.people.approval(site.node, study, site.people.dpo, dataset="heart")
    text = signed.document.replace(study.digest, other.digest)
    moved = signed.model_copy(update={"document": text})
    return site.refused(lambda: site.node.approving.decide(moved))


@attack("approval-after-the-end")
def approval_after_the_end(site: Site) -> str:
    study = site.propose(site.study())
    site.peer.ended.append(study.digest)
    site.tell()
    site.peer.ended.clear()
    return site.refused(lambda: site.approve(study))


@attack("approval-shown-again")
def approval_shown_again(site: Site) -> str:
    """A signed approval outlives its revocation on somebody's disk."""
    study = site.propose(site.study())
    words = [
        site.people.approval(site.node, study, key, dataset="heart")
        for key in (site.people.it, site.people.dpo)
    ]
    for word in words:
        site.node.approving.decide(word)
    site.launch(study)
    site.people.decide(site.node, study, site.people.dpo, "revoked")
    site.node.desk.send_decisions()
    site.watch()
    codes = {site.refused(lambda word=word: site.node.approving.decide(word)) for word in words}  # type: ignore[misc]
    assert codes == {"already-decided"}
    return site.ask(study)


@attack("resume-shown-again")
def resume_shown_again(site: Site) -> str:
    """The hospital's own order to go on, shown again after a later halt."""
    store, study = site.node.node.store, site.running()

    def resumed() -> Signed:
        order = SiteOrder(
            site="alpha", verb="resume", subject=study.digest, after=store.audit_head,
            person="dora", at=1.0,
        )  # fmt: skip
        return sign(order, site.people.dpo)

    stop(store, "halt", study.digest, "root")
    first, people = resumed(), site.node.node.cases.dossier.people
    resume(store, first, people, site="alpha")
    stop(store, "halt", study.digest, "root")
    site.watch()
    return site.refused(lambda: resume(store, first, people, site="alpha"))
