"""Anchors travel: out with each update, in with requests and lists, back after a new connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.anchors import open_anchor
from larrey_client.run import open_node
from larrey_client.settings import SiteSettings
from larrey_client.witnessed import witnessed
from larrey_protocol.decisions import AnchoredSpend
from larrey_protocol.roster import Seat
from larrey_protocol.signed import sign
from tests.client.ledger.conftest import State
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve
from tests.client.node.peer import Peer, wait_until
from tests.client.node.people import BETA
from tests.client.node.trainers import SmallTrainer

SEATS = [Seat(name="beta", key=BETA.public)]


@pytest.fixture
def beta(make_state: Callable[[str], State]) -> State:
    """Return the state of another site, which has the key of its seat on the roster."""
    state = make_state("beta")
    state.key = BETA
    state.begin()
    return state


def anchor_of(beta: State) -> bytes:
    """Return where the other site stands, one round further each time."""
    beta.work()
    return sign(beta.anchor().anchor.model_copy(update={"site": "beta"}), BETA).to_bytes()


def test_every_update_leaves_with_an_anchor_of_the_ledger_that_paid_for_it(
    agent: Agent,
    peer: Peer,
    approve: Approve,
    pki: Pki,
) -> None:
    given = peer.request(peer.first_task(approve(agent, STUDY)))
    anchored = open_anchor(given.anchor, pki.signing.public)
    with agent.node.store.reading():
        assert agent.node.store.ledger.has_head(anchored.head)
        assert sum(anchored.spent.values()) == sum(agent.node.store.ledger.spent().values()) > 0


def test_a_code_leaves_without_an_anchor(
    agent: Agent,
    peer: Peer,
    approve: Approve,
) -> None:
    task = peer.first_task(approve(agent, STUDY))
    given = peer.request(task, model_bytes=task.model_bytes + 1)
    assert given.fields["code"] == "model-wrong-size"
    assert given.anchor == b""


def kept(agent: Agent) -> list[bytes]:
    return witnessed(agent.node.store, SEATS)


def test_anchors_beside_a_request_are_kept_and_given_back_over_the_next_connection(
    agent: Agent,
    peer: Peer,
    approve: Approve,
    pki: Pki,
    beta: State,
) -> None:
    old, new = anchor_of(beta), anchor_of(beta)
    approve(agent, STUDY)
    peer.witness[:] = [b"x", new, old, agent.node.anchors.latest()]
    peer.request(peer.first_task(STUDY))
    wait_until(lambda: kept(agent) == [new])
    assert peer.told == []  # it came from there
    peer.stop()
    wait_until(lambda: bool(agent.trouble))
    peer.start(pki.server, pki.authority.certificate)
    wait_until(lambda: peer.told == [new])
    before = peer.takes
    wait_until(lambda: peer.takes > before + 1)
    assert peer.told == [new]  # once a connection


def test_what_is_not_in_the_form_of_an_anchor_does_not_leave_and_stops_nothing(
    agent: Agent,
    peer: Peer,
    approve: Approve,
    start: Callable[[], Agent],
    beta: State,
) -> None:
    """Another site may sign a family's name; it is not this one that tells it."""
    anchor = open_anchor(anchor_of(beta), BETA.public).anchor
    named = anchor.model_copy(update={"spent": (AnchoredSpend(family="heart", units=1),)})
    approve(agent, STUDY)
    peer.witness[:] = [sign(named, BETA).to_bytes()]
    peer.request(peer.first_task(STUDY))
    wait_until(lambda: kept(agent) == peer.witness)
    again = start()
    before = peer.takes
    wait_until(lambda: peer.takes > before + 2)
    assert not again.trouble
    assert peer.told == []


@pytest.fixture
def restored(settings: SiteSettings, pki: Pki, tmp_path: Path) -> SiteSettings:
    """Return the settings of the same site on a state folder that knows nothing of its work."""
    site = settings.site.model_copy(update={"state": tmp_path / "restored"})
    return pki.people.sign_charter(settings.model_copy(update={"site": site}))


def test_no_request_is_taken_before_the_coordinator_was_asked_for_anchors(
    agent: Agent,
    peer: Peer,
    approve: Approve,
    restored: SiteSettings,
    trainer: SmallTrainer,
) -> None:
    approve(agent, STUDY)
    peer.request(peer.first_task(STUDY))
    agent.stop()
    peer.anchors.append(peer.given[-1].anchor)
    peer.revision = 0  # nothing new: only the first question brings the anchors
    takes = peer.takes
    with open_node(restored, lambda _: trainer, threading.Event()) as other:
        wait_until(lambda: peer.takes > takes)  # the poll of the node before may still be there
        peer.send(peer.first_task(STUDY, 2))
        wait_until(lambda: len(peer.given) == 2)
        assert peer.given[1].fields["code"] == "ledger-behind"
        assert other.node.anchors.code == "ledger-behind"
