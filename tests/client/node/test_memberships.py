"""One node in two federations: one budget, and neither coordinator has a say in the other's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from larrey_client.agent import Agent
from larrey_client.charter import charter_of
from larrey_client.dossier import read_dossier
from larrey_client.explain import explain_status, explain_studies
from larrey_client.local import ask
from larrey_client.members import Members
from larrey_client.records import SiteRecords
from larrey_client.run import open_members
from larrey_client.settings import SiteSettings, load_settings
from larrey_client.store import open_readonly
from larrey_protocol.decisions import Order, SiteOrder
from larrey_protocol.errors import FileError, LarreyError
from larrey_protocol.keys import SigningKey, write_private
from larrey_protocol.signed import Answer, Proposal, Signed, open_signed, sign
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki, propose
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import make_roster
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

OURS = make_study()
THEIRS = make_study(study__name="other", study__title="Another consortium's")
MORE = """
[[memberships]]
name = "north"
coordinator.address = "localhost:{port}"
coordinator.authority = "ca.crt"
identity.certificate = "north.crt"
identity.key = "north.key"
consortium.key = "{key}"
"""


@dataclass
class Side:
    """One membership as its own consortium and its people see it."""

    agent: Agent
    peer: Peer
    pki: Pki

    def propose(self, study: Study) -> Study:
        return propose(self.peer, self.pki, self.agent, study)

    def approve(self, study: Study) -> Study:
        self.propose(study)
        for key in (self.pki.people.it, self.pki.people.dpo):
            self.pki.people.approve(self.agent, study, key)
        self.agent.desk.send_decisions()
        self.pki.people.launch(self.agent, study, self.pki.consortium)
        return study

    def code(self, study: Study, number: int = 1) -> str:
        return str(self.peer.request(self.peer.first_task(study, number)).fields["code"])

    def answers(self) -> list[Answer]:
        key = self.pki.signing.public
        return [open_signed(Signed.from_bytes(a), Answer, key) for a in self.peer.answers]


@pytest.fixture
def north(pki: Pki) -> Iterator[Peer]:
    coordinator = Peer().start(pki.server, pki.authority.certificate)
    yield coordinator
    coordinator.stop()


@pytest.fixture
def northern(pki: Pki) -> Pki:
    """Return the same hospital under another consortium's key."""
    return replace(pki, consortium=SigningKey.generate())


@pytest.fixture
def budget() -> str:
    return "8.0"


@pytest.fixture
def settings(site_file: Path, pki: Pki, north: Peer, northern: Pki, budget: str) -> SiteSettings:
    folder = site_file.parent
    (folder / "north.crt").write_bytes(pki.site.certificate)
    write_private(folder / "north.key", pki.site.key)
    more = MORE.format(port=north.port, key=northern.consortium.public)
    text = site_file.read_text().replace("epsilon = 8.0", f"epsilon = {budget}")
    site_file.write_text(text + more)
    return pki.people.sign_charter(load_settings(site_file))


@pytest.fixture
def members(settings: SiteSettings, trainer: SmallTrainer) -> Iterator[Members]:
    with open_members(settings, lambda _: trainer, threading.Event()) as running:
        yield running


@pytest.fixture
def ours(members: Members, peer: Peer, pki: Pki) -> Side:
    return Side(members.first, peer, pki)


@pytest.fixture
def theirs(members: Members, north: Peer, northern: Pki) -> Side:
    return Side(members.named("north"), north, northern)


def actions(side: Side) -> list[tuple[str, str, str]]:
    with side.agent.node.store.reading() as records:
        return [(record.action, record.actor, record.code) for record in records.audit()]


def rejected(side: Side, action: str, code: str) -> None:
    """Wait until the trail says that this coordinator's document was turned down."""
    wait_until(lambda: any((a, c) == (action, code) for a, _, c in actions(side)))


def at_door(side: Side, command: str, **arguments: Any) -> Any:
    return ask(side.agent.node.settings.site.state, command, **arguments)


def test_each_coordinator_gets_the_answers_and_updates_of_its_own_study_alone(
    ours: Side, theirs: Side
) -> None:
    ours.approve(OURS), theirs.approve(THEIRS)
    assert (ours.code(OURS), theirs.code(THEIRS)) == ("", "")
    assert [answer.study for answer in ours.answers()] == [OURS.digest]
    assert [answer.study for answer in theirs.answers()] == [THEIRS.digest]
    assert ours.peer.uploads.keys().isdisjoint(theirs.peer.uploads)


@pytest.mark.parametrize("budget", ["2.5"])
def test_both_consortia_draw_on_one_budget(ours: Side, theirs: Side) -> None:
    ours.approve(OURS)
    theirs.propose(THEIRS)
    with pytest.raises(LarreyError) as caught:
        theirs.pki.people.approve(theirs.agent, THEIRS, theirs.pki.people.it)
    assert caught.value.code == "budget-exhausted"


def test_a_coordinator_says_nothing_that_counts_about_anothers_study(
    ours: Side, theirs: Side, trainer: SmallTrainer
) -> None:
    ours.approve(OURS), theirs.approve(THEIRS)
    foreign = theirs.pki.consortium
    relayed = sign(Proposal(study=OURS, proposed_at=1.0), ours.pki.consortium).to_bytes()
    theirs.peer.propose(relayed)
    rejected(theirs, "proposal-rejected", "wrong-signer")
    theirs.peer.propose(sign(Proposal(study=OURS, proposed_at=1.0), foreign).to_bytes())
    rejected(theirs, "proposal-rejected", "study-of-other-membership")
    theirs.peer.order(order(OURS, "halt", foreign))
    rejected(theirs, "order-rejected", "study-of-other-membership")
    theirs.peer.order(order(OURS, "halt", ours.pki.consortium))
    rejected(theirs, "order-rejected", "wrong-signer")
    theirs.peer.tell(
        rosters=sign(
            make_roster(ours.pki.signing.public, version=9), ours.pki.consortium
        ).to_bytes()
    )
    rejected(theirs, "document-rejected", "wrong-signer")
    theirs.peer.end(OURS.digest)
    assert theirs.code(OURS) == "study-not-approved"
    assert {actor for action, actor, _ in actions(theirs) if action.endswith("-rejected")} == {
        "coordinator north"
    }
    assert (ours.code(OURS), theirs.code(THEIRS), trainer.interrupted) == ("", "", [])


def order(study: Study, verb: str, key: SigningKey, number: int = 2) -> bytes:
    fields = {"study": study.digest, "number": number, "person": "ada", "at": 1.0, "verb": verb}
    return sign(Order.model_validate(fields), key).to_bytes()


def test_what_one_consortium_halts_leaves_the_other_running(ours: Side, theirs: Side) -> None:
    ours.approve(OURS), theirs.approve(THEIRS)
    theirs.peer.order(order(THEIRS, "halt", theirs.pki.consortium))
    wait_until(lambda: theirs.agent.node.cases.standing(THEIRS.digest).is_halted)
    assert (theirs.code(THEIRS), ours.code(OURS)) == ("study-halted", "")


def test_what_a_person_halts_by_name_leaves_the_other_running(ours: Side, theirs: Side) -> None:
    ours.approve(OURS), theirs.approve(THEIRS)
    at_door(ours, "halt", study="other")
    assert (theirs.code(THEIRS), ours.code(OURS)) == ("site-not-ready", "")
    at_door(ours, "halt")
    assert (theirs.code(THEIRS, 2), ours.code(OURS, 2)) == ("site-not-ready", "site-not-ready")


def test_a_study_that_names_anothers_as_its_parent_takes_nothing_from_it(
    ours: Side, theirs: Side
) -> None:
    ours.approve(OURS)
    theirs.approve(make_study(study__name="other", study__version=2, study__parent=OURS.digest))
    assert ours.code(OURS) == ""


def test_a_name_that_two_consortia_chose_means_no_study(ours: Side, theirs: Side) -> None:
    ours.propose(OURS), theirs.propose(make_study(study__title="By other people"))
    with pytest.raises(LarreyError) as caught:
        at_door(ours, "study terms", study=OURS.name)
    assert caught.value.code == "study-ambiguous"
    assert at_door(ours, "study terms", study=OURS.digest)["study"] == OURS.digest


def test_a_person_decides_by_the_one_door_and_reads_whose_study_it_is(
    ours: Side, theirs: Side, settings: SiteSettings
) -> None:
    ours.propose(OURS), theirs.propose(THEIRS)
    for key in (ours.pki.people.it, ours.pki.people.dpo):
        word = theirs.pki.people.approval(theirs.agent, THEIRS, key)
        made = at_door(ours, "study decide", signed=word.to_bytes().decode())
    assert (made["decision"], made["is_sent"]) == ("approved", True)
    assert [answer.study for answer in theirs.answers()] == [THEIRS.digest]
    assert ours.answers() == []
    listed = at_door(ours, "study list")
    assert {one["name"]: one["membership"] for one in listed} == {"tiny": "first", "other": "north"}
    assert "north" in explain_studies(listed)
    assert [one["reference"] for one in at_door(ours, "permit list")] == ["test/1", "test/1"]
    with pytest.raises(LarreyError) as caught:
        at_door(ours, "permit show", reference="test/1")
    assert caught.value.code == "membership-required"
    newest = at_door(ours, "permit show", reference="test/1", membership="north")
    assert newest["digest"] == theirs.agent.node.cases.dossier.permit("test/1")[0]
    shown = [(one["name"], one["is_connected"]) for one in at_door(ours, "status")["memberships"]]
    assert shown == [("first", True), ("north", True)]
    assert f"north at localhost:{theirs.peer.port}: connected" in explain_status(
        at_door(ours, "status")
    )


def test_a_round_makes_two_durable_commits_and_is_told_apart_after_a_restart(
    ours: Side, theirs: Side, settings: SiteSettings, trainer: SmallTrainer
) -> None:
    ours.approve(OURS), theirs.approve(THEIRS)
    statements: list[str] = []
    connection = ours.agent.node.store.records.connection
    connection.set_trace_callback(statements.append)
    assert (ours.code(OURS), ours.code(OURS, 2)) == ("", "")
    connection.set_trace_callback(None)
    assert statements.count("COMMIT") == 4
    for agent in (ours.agent, theirs.agent):
        agent.stop()
    with closing(open_readonly(settings.site.state)) as connection:
        for scope, study in (("", OURS), (theirs.agent.node.membership.scope, THEIRS)):
            records = SiteRecords(connection, scope)
            assert [known.study.digest for known in records.known()] == [study.digest]
            assert read_dossier(records, scope or ours.pki.consortium.public).altered == ""


def test_a_coordinator_that_is_away_holds_nobody_else(ours: Side, theirs: Side) -> None:
    ours.approve(OURS)
    theirs.peer.stop()
    assert ours.code(OURS) == ""
    wait_until(lambda: theirs.agent.trouble)
    assert ours.agent.is_connected


def test_leaving_one_consortium_leaves_the_other_running(
    ours: Side, theirs: Side, settings: SiteSettings, trainer: SmallTrainer
) -> None:
    ours.approve(OURS), theirs.approve(THEIRS)
    with pytest.raises(LarreyError) as caught:
        at_door(ours, "stop terms", membership="")
    assert caught.value.code == "membership-required"
    terms = at_door(ours, "stop terms", membership="north")
    fields = terms | {"verb": "leave", "person": "ines", "at": 1.0}
    signed = sign(SiteOrder.model_validate(fields), ours.pki.people.it)
    done = at_door(ours, "leave", signed=signed.to_bytes().decode())
    assert (done["membership"], done["closed"]) == ("north", 1)
    wait_until(lambda: any(kind(one) == "departure" for one in theirs.peer.told))
    assert ours.code(OURS) == ""
    assert ours.peer.told == []
    assert [one["has_left"] for one in at_door(ours, "status")["memberships"]] == [False, True]


def kind(document: bytes) -> str:
    return Signed.from_bytes(document).kind


def test_another_membership_counts_when_the_hospitals_people_signed_it(
    settings: SiteSettings, site_file: Path, northern: Pki, trainer: SmallTrainer, ours: Side
) -> None:
    charter = charter_of(settings)
    assert [one.consortium for one in charter.memberships] == [northern.consortium.public]
    first = settings.model_copy(update={"memberships": ()})
    assert "memberships" not in charter_of(first).text
    assert charter_of(first).digest != charter.digest
    assert not ours.agent.node.cases.dossier.is_charter(charter_of(first).digest)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "north"', 'name = "first"'),
        ('identity.key = "north.key"', 'identity.key = "site.key"'),
        ("{theirs}", "{ours}"),
    ],
)
def test_a_membership_has_a_name_a_key_and_a_consortium_of_its_own(
    settings: SiteSettings, site_file: Path, pki: Pki, northern: Pki, old: str, new: str
) -> None:
    keys = {"theirs": northern.consortium.public, "ours": pki.consortium.public}
    text = site_file.read_text()
    head, _, more = text.partition("[[memberships]]")
    changed = more.replace(old.format(**keys), new.format(**keys))
    assert changed != more
    site_file.write_text(f"{head}[[memberships]]{changed}")
    with pytest.raises(FileError):
        load_settings(site_file)


def test_the_trail_is_exported_for_one_coordinator_without_the_receipts_of_the_other(
    ours: Side, theirs: Side
) -> None:
    ours.approve(OURS), theirs.approve(THEIRS)
    ours.code(OURS), theirs.code(THEIRS)
    for name, study, other in (("first", OURS, THEIRS), ("north", THEIRS, OURS)):
        made = at_door(ours, "audit export", membership=name)
        studies = [json.loads(one["document"])["study"] for one in made["receipts"]]
        assert (studies, made["elsewhere"]) == ([study.digest], [other.digest])
    for name, code in (("", "membership-required"), ("south", "membership-unknown")):
        with pytest.raises(LarreyError) as caught:
            at_door(ours, "audit export", membership=name)
        assert caught.value.code == code
