"""What tests of the node ask of it: its hold, its receipts, its trail."""

from __future__ import annotations

from collections.abc import Callable

from larrey_client.agent import Agent
from larrey_privacy.ledger import Hold
from larrey_protocol.signed import Receipt, Signed, open_signed
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki
from tests.client.node.peer import Given
from tests.protocol.samples import study as make_study

Approve = Callable[[Agent, Study], Study]
STUDY = make_study()


def held(agent: Agent, study: Study = STUDY) -> Hold:
    with agent.node.store.reading():
        hold = agent.node.store.ledger.held("heart", study.digest)
    assert hold is not None
    return hold


def receipt_of(given: Given, pki: Pki) -> Receipt:
    return open_signed(Signed.from_bytes(given.receipt), Receipt, pki.signing.public)


def audit_of(agent: Agent) -> list[tuple[str, str]]:
    with agent.node.store.reading() as records:
        return [(record.action, record.code) for record in records.audit()]
