"""Several studies at one site: what is slow, stopped or killed in one holds no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from larrey_client.agent import Agent
from larrey_client.explain import explain_status
from larrey_client.flower import open_take
from larrey_client.local import ask
from larrey_client.metrics import SiteMetrics
from larrey_client.windows import make_windows
from larrey_client.work import Worker
from larrey_protocol.errors import LarreyError
from larrey_protocol.study import Study
from tests.client.node.facts import STUDY, Approve, held
from tests.client.node.peer import Peer, wait_until, wrap
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

OTHER, THIRD = (make_study(study__name=name) for name in ("another-study", "third-study"))


@pytest.fixture
def both(agent: Agent, approve: Approve) -> Agent:
    """Return a node with two studies."""
    for study in (STUDY, OTHER):
        approve(agent, study)
    return agent


def training(peer: Peer, trainer: SmallTrainer, study: Study) -> None:
    """Ask for a round and wait until the trainer works on it; `release` lets it end."""
    trainer.entered.clear()
    trainer.release.clear()
    peer.send(peer.first_task(study))
    assert trainer.entered.wait(5)


def in_line(agent: Agent, count: int = 1) -> None:
    """Wait until that many requests wait for the trainer."""
    wait_until(lambda: len(agent.node.trainer_turn._line) == count)


def uploading(peer: Peer, study: Study) -> threading.Event:
    """Ask for a round and wait until its upload stands still; return what lets it go on."""
    count, stall = peer.stalled, peer.stall()
    peer.send(peer.first_task(study))
    wait_until(lambda: peer.stalled == count + 1)
    return stall


def answers(peer: Peer) -> list[tuple[str, str]]:
    """Return study and code of each reply, in their order."""
    return [(given.fields["study"], given.fields["code"]) for given in peer.given]


def halt(agent: Agent, study: Study) -> None:
    ask(agent.node.settings.site.state, "halt", study=study.digest)


def test_while_an_update_is_sent_slowly_another_study_does_its_rounds(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    stall = uploading(peer, STUDY)
    for number in (1, 2):
        assert peer.request(peer.first_task(OTHER, number)).fields["code"] == ""
    stall.set()
    wait_until(lambda: len(peer.given) == 3)
    assert answers(peer) == [(OTHER.digest, ""), (OTHER.digest, ""), (STUDY.digest, "")]
    assert (held(both).rounds_used, held(both, OTHER).rounds_used) == (1, 2)


def test_while_a_model_comes_slowly_another_study_does_its_round(both: Agent, peer: Peer) -> None:
    asked = peer.first_task(STUDY, 2)
    stall = peer.stalled_models[asked.model] = threading.Event()
    peer.send(asked)
    wait_until(lambda: peer.fetch_offsets)
    assert peer.request(peer.first_task(OTHER)).fields["study"] == OTHER.digest
    stall.set()
    wait_until(lambda: len(peer.given) == 2)
    assert answers(peer) == [(OTHER.digest, ""), (STUDY.digest, "")]


def test_while_one_study_trains_another_is_fetched_and_does_not_train(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    training(peer, trainer, STUDY)
    peer.send(peer.first_task(OTHER))
    in_line(both)
    assert len(peer.fetch_offsets) == 2
    assert [wish.study for wish in trainer.trained] == [STUDY.digest]
    assert held(both, OTHER).rounds_used == 0
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 2)
    assert [wish.study for wish in trainer.trained] == [STUDY.digest, OTHER.digest]


def test_a_repetition_waits_for_its_own_study_and_gets_its_answer(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    stall = uploading(peer, STUDY)
    peer.send(replace(peer.first_task(STUDY), attempt=2))
    peer.request(peer.first_task(OTHER))  # it came later, and was not held
    assert STUDY.digest in both._inbox._waiting
    assert len(peer.store_offsets) == 2
    stall.set()
    wait_until(lambda: len(peer.given) == 3)
    assert sorted(answers(peer)) == sorted([(OTHER.digest, ""), *[(STUDY.digest, "")] * 2])
    assert len(trainer.trained) == 2
    assert held(both).rounds_used == 1


def test_a_study_that_is_halted_in_line_leaves_the_one_that_trains(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    training(peer, trainer, OTHER)
    peer.send(peer.first_task(STUDY))
    in_line(both)
    halt(both, STUDY)
    wait_until(lambda: peer.given)
    assert not trainer.release.is_set()
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 2)
    assert answers(peer) == [(STUDY.digest, "site-not-ready"), (OTHER.digest, "")]
    assert (held(both).rounds_used, held(both, OTHER).rounds_used) == (0, 1)
    assert [study for study, _ in trainer.loads[-1:]] == [OTHER.digest]


def test_a_study_that_is_halted_while_it_trains_leaves_the_one_in_line(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    training(peer, trainer, STUDY)
    peer.send(peer.first_task(OTHER))
    in_line(both)
    halt(both, STUDY)
    wait_until(lambda: len(peer.given) == 2)
    assert sorted(answers(peer)) == sorted([(STUDY.digest, "site-not-ready"), (OTHER.digest, "")])


def test_what_is_halted_while_it_is_sent_is_not_handed_over_and_others_go_on(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    stall = uploading(peer, STUDY)
    training(peer, trainer, OTHER)
    halt(both, STUDY)
    assert not trainer.release.is_set()
    stall.set()
    wait_until(lambda: peer.given)
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 2)
    assert answers(peer) == [(STUDY.digest, "site-not-ready"), (OTHER.digest, "")]


def test_a_later_round_ends_the_waiting_of_its_own_study_alone(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    training(peer, trainer, OTHER)
    peer.send(peer.first_task(STUDY, 1))
    in_line(both)
    peer.send(peer.first_task(STUDY, 2))
    wait_until(lambda: peer.given)
    assert answers(peer) == [(STUDY.digest, "superseded")]
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 3)
    assert trainer.interrupted == []
    assert [(wish.study, wish.round) for wish in trainer.trained] == [
        (OTHER.digest, 1),
        (STUDY.digest, 2),
    ]
    assert held(both).rounds_used == 1


def test_a_deadline_that_passes_in_line_is_told_at_once_and_spends_nothing(
    both: Agent, peer: Peer
) -> None:
    asked = replace(peer.first_task(STUDY), deadline_s=0.2)
    with both.node.trainer_turn:
        assert peer.request(asked).fields["code"] == "deadline-passed"
    assert held(both).rounds_used == 0


def test_a_window_that_closes_while_a_request_is_in_line_lets_no_training_begin(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    hours = both.node.settings.trainer.model_copy(
        update={"windows": ("22:00-06:00",), "timezone": "UTC"}
    )
    settings = both.node.settings.model_copy(update={"trainer": hours})
    windows, midnight = make_windows(hours.windows, hours.timezone), 86400.0 * 30_000
    at = [midnight]
    assert windows.admits(at[0])
    node = replace(both.node, settings=settings, now=lambda: at[0])
    incoming = open_take(wrap(asdict(peer.first_task(STUDY))))
    assert incoming is not None
    thread = threading.Thread(target=Worker(node).answer, args=(incoming, node.monotonic()))
    with node.trainer_turn:
        thread.start()
        in_line(both)
        at[0] += 7 * 3600
        thread.join(5)
    assert answers(peer) == [(STUDY.digest, "outside-window")]
    assert (held(both).rounds_used, trainer.trained) == (0, [])


def test_a_node_killed_with_three_studies_under_way_answers_each_once(
    start: Callable[[], Agent], peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    agent = start()
    for study in (STUDY, OTHER, THIRD):
        approve(agent, study)
    stalls = [uploading(peer, study) for study in (STUDY, OTHER)]
    training(peer, trainer, THIRD)
    trainer.fail = LarreyError("trainer-crashed", "killed")
    again = start()  # stops the first one, as a kill would
    trainer.fail = None
    for stall in stalls:
        stall.set()
    assert peer.given == []
    for study in (STUDY, OTHER, THIRD):
        peer.send(replace(peer.first_task(study), attempt=2))
    wait_until(lambda: len(peer.given) == 3)
    assert sorted(answers(peer)) == sorted((one.digest, "") for one in (STUDY, OTHER, THIRD))
    assert [held(again, one).rounds_used for one in (STUDY, OTHER, THIRD)] == [1, 1, 2]
    assert [wish.study for wish in trainer.trained].count(THIRD.digest) == 2
    assert len(trainer.trained) == 4


def test_status_names_the_study_that_trains_and_the_one_that_waits(
    both: Agent, peer: Peer, trainer: SmallTrainer
) -> None:
    training(peer, trainer, STUDY)
    peer.send(peer.first_task(OTHER))
    in_line(both)
    status = ask(both.node.settings.site.state, "status")
    work = [(one["study"], one["round"], one["phase"]) for one in status["at_work"]]
    assert sorted(work) == sorted((one.digest, 1, "train") for one in (STUDY, OTHER))
    assert f"at work     {OTHER.digest[7:19]} round 1 train" in explain_status(status)
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 2 and not both.under_way)
    assert ask(both.node.settings.site.state, "status")["at_work"] == []


def test_what_was_delivered_by_several_studies_is_settled_with_the_next_debit(
    both: Agent, peer: Peer
) -> None:
    for study in (STUDY, OTHER):
        peer.request(peer.first_task(study))
    peer.request(peer.first_task(STUDY, 2))

    def settled(study: Study) -> list[Any]:
        return [one.round for one in held(both, study).reservations if one.is_settled]

    assert (settled(STUDY), settled(OTHER)) == ([1], [1])


def test_a_node_shows_everything_that_it_does_and_is_idle_while_it_does_nothing(
    agent: Agent,
) -> None:
    metrics = SiteMetrics(agent.node.settings.site.state)
    thread = threading.Thread(target=metrics.enter, args=("sending",))
    thread.start()
    thread.join()
    metrics.enter("training")

    def shown() -> list[float | None]:
        return [
            metrics.registry.get_sample_value("larrey_site_state", {"state": state})
            for state in ("idle", "training", "sending")
        ]

    assert shown() == [0.0, 1.0, 1.0]
    metrics.enter("idle")
    assert shown() == [0.0, 0.0, 1.0]
