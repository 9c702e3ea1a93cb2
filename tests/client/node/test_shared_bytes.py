"""Two studies may answer with the same bytes: what ends one leaves the other's answer."""

from __future__ import annotations

import os

import pytest

from larrey_client.agent import Agent
from larrey_client.closing import answers_closer
from larrey_client.outbox import Outbox
from larrey_client.records import Answered
from larrey_protocol.errors import Refusal

ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def spool(agent: Agent, study: str) -> tuple[str, int]:
    update = os.memfd_create("update")
    try:
        os.write(update, b"the same bytes")
        return Outbox(agent.node).spool(study, update)
    finally:
        os.close(update)


def answer(agent: Agent, study: str) -> str:
    digest, size = spool(agent, study)
    with agent.node.store.transaction():
        agent.node.store.add_answer((study, 1, "train", "model"), Answered(digest, size, b""))
    return digest


def end(agent: Agent, study: str) -> list[str]:
    with agent.node.store.transaction():
        agent.node.store.add_ending(study)
    return [item.digest for item in answers_closer(agent.node)(study)]


def is_kept(agent: Agent, digest: str) -> bool:
    return (agent.node.store.spool / digest.removeprefix("sha256:")).exists()


def refuse(agent: Agent, digest: str) -> None:
    with pytest.raises(Refusal, match="superseded"), Outbox(agent.node).dropped_if_refused(digest):
        raise Refusal("superseded", "nobody awaits it")


def test_a_refused_update_leaves_the_same_bytes_of_another_study(agent: Agent) -> None:
    digest = answer(agent, OTHER)
    assert spool(agent, ONE)[0] == digest
    refuse(agent, digest)
    assert is_kept(agent, digest)


def test_a_refused_update_that_no_open_study_answers_with_is_deleted(agent: Agent) -> None:
    digest = answer(agent, OTHER)
    end(agent, OTHER)
    spool(agent, ONE)
    refuse(agent, digest)
    assert not is_kept(agent, digest)


def test_the_last_study_to_close_deletes_the_bytes_that_two_answered_with(agent: Agent) -> None:
    digest = answer(agent, ONE)
    answer(agent, OTHER)
    assert end(agent, ONE) == []
    assert is_kept(agent, digest)
    assert end(agent, OTHER) == [digest]
    assert not is_kept(agent, digest)
