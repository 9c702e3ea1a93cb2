"""A running node anchors each round, and stops when somebody knows more of its ledger than it."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.family_tags import tags_of
from larrey_client.run import open_node
from larrey_client.settings import SiteSettings
from larrey_client.witness import read_anchors
from larrey_client.witness_settings import Witness
from larrey_protocol.errors import IntegrityError
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve
from tests.client.node.peer import Peer, wait_until
from tests.client.node.trainers import SmallTrainer


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "share" / "anchors.log"


@pytest.fixture
def settings(settings: SiteSettings, share: Path, pki: Pki) -> SiteSettings:
    return pki.people.sign_charter(settings.model_copy(update={"witness": Witness(file=share)}))


def one_round(agent: Agent, peer: Peer, approve: Approve) -> None:
    given = peer.request(peer.first_task(approve(agent, STUDY)))
    assert given.fields["code"] == ""


def test_each_round_is_anchored_before_its_update_is_sent(
    agent: Agent, peer: Peer, approve: Approve, share: Path, pki: Pki
) -> None:
    one_round(agent, peer, approve)
    (anchor,) = read_anchors(share, pki.signing.public)
    with agent.node.store.reading():
        spent = agent.node.store.ledger.spent()
        assert agent.node.store.ledger.has_head(anchor.head)
    assert spent["heart"] > 0
    assert anchor.spent == {tags_of(pki.signing, spent)["heart"]: spent["heart"]}


@pytest.fixture
def restored(settings: SiteSettings, tmp_path: Path) -> SiteSettings:
    """Return the settings of the same site on a state folder that knows nothing of its work."""
    site = settings.site.model_copy(update={"state": tmp_path / "restored"})
    return settings.model_copy(update={"site": site})


def open_again(settings: SiteSettings, trainer: SmallTrainer) -> AbstractContextManager[Agent]:
    return open_node(settings, lambda _: trainer, threading.Event())


def test_a_node_behind_its_witness_does_not_start(
    agent: Agent, peer: Peer, approve: Approve, restored: SiteSettings, trainer: SmallTrainer
) -> None:
    one_round(agent, peer, approve)
    with (
        pytest.raises(IntegrityError, match="ledger-behind"),
        open_again(restored, trainer),
    ):
        pass


def test_a_node_that_its_coordinator_remembers_better_refuses_everything(
    agent: Agent, peer: Peer, approve: Approve, restored: SiteSettings, trainer: SmallTrainer
) -> None:
    one_round(agent, peer, approve)
    peer.tell(anchors=agent.node.anchors.latest())
    agent.stop()
    without = restored.model_copy(update={"witness": Witness()})
    with open_again(without, trainer) as other:
        wait_until(lambda: other.node.anchors.code == "ledger-behind")
        assert other.node.cases.ground().anchors_code == "ledger-behind"
    with (
        pytest.raises(IntegrityError, match="ledger-behind"),
        open_again(without, trainer),
    ):
        pass
