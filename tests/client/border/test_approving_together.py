"""Persons who sign at the same time: whoever comes second completes the approval."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from larrey_client.agent import Agent
from larrey_client.approving import Approving
from larrey_client.cases import Cases
from larrey_client.dossier import Dossier
from tests.client.border.watched import WatchingPeer
from tests.client.node.conftest import Approve, Pki
from tests.client.node.facts import audit_of
from tests.protocol.samples import study as make_study


class Interrupted(Cases):
    """The node's cases; something else happens when documents are read for the n-th time."""

    after = 0
    act: Callable[[], object] | None = None

    @property
    def dossier(self) -> Dossier:
        found = super().dossier
        self.after -= 1
        if self.after == 0 and self.act and not self._store.records.connection.in_transaction:
            act, self.act = self.act, None
            act()
        return found


def test_whenever_the_other_person_signs_two_signatures_are_an_approval(
    agent: Agent, peer: WatchingPeer, pki: Pki, lawful: Approve
) -> None:
    node = agent.node
    for after in count(1):
        study = lawful(agent, make_study(study__name=f"study-{after}"))
        mine, other = (
            pki.people.approval(agent, study, k) for k in (pki.people.it, pki.people.dpo)
        )
        cases = Interrupted(node.settings, node.store, time.time)
        cases.after, cases.act = after, lambda other=other: agent.approving.decide(other)
        made = Approving(replace(node, cases=cases)).decide(mine)
        if cases.act is not None:  # it was read less often than that
            break
        with node.store.reading() as records:
            decision = records.decision(study.digest)
            hold = node.store.ledger.held("heart", study.digest)
        assert (made["decision"], decision and decision.decision) == ("approved", "approved"), after
        assert hold is not None
    assert after > 4
    acts = [action for action, _ in audit_of(agent)]
    assert acts.count("approval-signed") == 2 * (after - 1) + 1
    assert acts.count("study-approved") == after - 1
