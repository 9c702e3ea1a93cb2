"""Leaving that a kill cut is finished at the next start: nothing is kept, the coordinator hears."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from larrey_client.agent import Agent
from larrey_client.closing import Closing, answers_closer
from larrey_client.leaving import leave
from larrey_protocol.decisions import DeletionReceipt, Departure, SiteOrder
from larrey_protocol.errors import Refusal
from larrey_protocol.signed import Signed, open_signed, sign
from tests.client.node.conftest import Pki
from tests.client.node.facts import STUDY, Approve
from tests.client.node.peer import Peer, wait_until
from tests.protocol.samples import study as make_study


class Killed(BaseException):
    """The process ended here."""


def killing(_study: str) -> Iterable[None]:
    raise Killed


def test_leaving_that_a_kill_cut_is_finished_at_the_next_start(
    start: Callable[[], Agent], approve: Approve, peer: Peer, pki: Pki
) -> None:
    agent = start()
    studies = [approve(agent, STUDY), approve(agent, make_study(study__name="second"))]
    for study in studies:
        assert peer.request(peer.first_task(study)).fields["code"] == ""
    node = agent.node
    order = SiteOrder(
        site="alpha", verb="leave", after=node.store.audit_head, person="ines", at=1.0
    )
    agent.stop()
    with pytest.raises(Killed):
        leave(
            node,
            Closing(node, (answers_closer(node), killing)),  # type: ignore[arg-type]
            sign(order, pki.people.it),
            node.cases.dossier.people,
        )
    agent = start()
    wait_until(lambda: not agent._threads[0].is_alive())
    assert list(agent.node.store.spool.iterdir()) == []
    told = [Signed.from_bytes(data) for data in peer.told]
    closed = [open_signed(s, DeletionReceipt, pki.signing.public).study for s in told[:-1]]
    assert sorted(closed) == sorted(study.digest for study in studies)
    assert open_signed(told[-1], Departure, pki.signing.public).site == "alpha"
    with pytest.raises(Refusal, match="site-left"):
        start()
