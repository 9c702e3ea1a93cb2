"""Who is served next, and what a later request of a study does to the one before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.agent import Agent
from larrey_client.flower import Incoming, open_take
from larrey_client.inbox import Current, Inbox, Waiting, overtakes
from larrey_client.padding import release_at
from larrey_client.run import open_node
from larrey_client.settings import SiteSettings
from larrey_client.task import Task
from larrey_client.turn import Turn
from larrey_protocol.errors import Refusal
from tests.client.node.facts import STUDY, Approve, audit_of, held
from tests.client.node.peer import Peer, wait_until, wrap
from tests.client.node.trainers import SmallTrainer
from tests.protocol.samples import study as make_study

OTHER = make_study(study__name="another-study")


def task(study: str = "a", number: int = 1, model: str = "m") -> Task:
    digests = {"study": f"sha256:{study[0] * 64}", "model": f"sha256:{'0' * 63}{len(model)}"}
    return Task(round=number, phase="train", attempt=1, model_bytes=9, deadline_s=9.0, **digests)


def incoming(asked: Task) -> Incoming:
    made = open_take(wrap(asdict(asked)))
    assert made is not None
    return made


def rounds_of(inbox: Inbox, count: int) -> list[tuple[str, int]]:
    """Return study and round of the next requests."""
    found = []
    for _ in range(count):
        waiting = inbox.take()
        assert waiting is not None
        assert waiting.incoming.task is not None
        found.append((waiting.incoming.task.study[-1], waiting.incoming.task.round))
    return found


def test_a_flood_of_one_study_s_requests_leaves_the_newest_and_the_other_study_s_turn() -> None:
    inbox = Inbox()
    for number in range(1, 6):
        inbox.put(Waiting(incoming(task("a", number)), 0.0), 1.0)
    inbox.put(Waiting(incoming(task("b", 1)), 0.0), 1.0)
    inbox.put(Waiting(incoming(task("a", 6)), 0.0), 1.0)
    first = inbox.take()
    assert first is not None
    assert first.incoming.task == task("a", 6)
    inbox.put(Waiting(incoming(task("a", 7)), 0.0), 1.0)  # just served: behind the other one
    inbox.done(first)
    assert rounds_of(inbox, 2) == [("b", 1), ("a", 7)]


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "done"]), st.sampled_from("abcd"))))
def test_of_each_study_at_most_one_request_is_under_way_and_who_waited_longest_is_next(
    steps: list[tuple[str, str]],
) -> None:
    inbox, waiting, taken = Inbox(), list[str](), dict[str, Waiting]()
    for number, (step, study) in enumerate(steps, 1):
        free = [one for one in waiting if one not in taken]
        if step == "put":
            assert inbox.put(Waiting(incoming(task(study, number)), 0.0), 1.0)
            waiting += [] if study in waiting else [study]
        elif step == "done" and study in taken:
            inbox.done(taken.pop(study))
        elif step == "take" and free:
            request = inbox.take()
            assert request is not None
            assert request.incoming.task is not None
            assert request.incoming.task.study[-1] == free[0]
            taken[free[0]] = request
            waiting.remove(free[0])


def test_a_request_that_waits_for_its_own_study_is_taken_by_another_thread_once_that_is_done() -> (
    None
):
    inbox = Inbox()
    inbox.put(Waiting(incoming(task("a", 1)), 0.0), 1.0)
    first, later = inbox.take(), list[Waiting | None]()
    assert first is not None
    thread = threading.Thread(target=lambda: later.append(inbox.take()))
    thread.start()
    second = Waiting(incoming(task("a", 2)), 0.0)
    inbox.put(second, 1.0)
    thread.join(0.05)
    assert later == []
    inbox.done(first)
    thread.join(5)
    assert later == [second]


def test_as_many_studies_wait_as_may_and_each_may_still_be_replaced() -> None:
    inbox = Inbox(most=2)
    assert inbox.put(Waiting(incoming(task("a")), 0.0), 0.01)
    assert inbox.put(Waiting(incoming(task("b")), 0.0), 0.01)
    assert not inbox.put(Waiting(incoming(task("c")), 0.0), 0.01)
    assert inbox.put(Waiting(incoming(task("b", 2)), 0.0), 0.01)
    inbox.close()
    assert inbox.take() is None


@given(
    st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["m", "mm"])),
    st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["m", "mm"])),
)
def test_only_a_later_round_or_another_model_of_the_same_study_overtakes(
    first: tuple[str, int, str], second: tuple[str, int, str]
) -> None:
    (study, number, model), (new_study, new_number, new_model) = first, second
    is_same = study == new_study
    expected = is_same and (new_number > number or (new_number == number and new_model != model))
    assert overtakes(task(*second), task(*first)) == expected


def test_a_request_that_was_overtaken_is_not_paid_for_and_a_training_is_interrupted() -> None:
    current = Current(task("a", 1))
    current.require()
    assert not current.overtake(task("b", 2))
    assert not current.overtake(task("a", 2))  # nothing to interrupt yet
    for act in (current.require, current.start_training):
        with pytest.raises(Refusal, match="superseded"):
            act()
    current = Current(task("a", 2))
    current.start_training()
    assert not current.overtake(task("a", 2, "m"))  # a repetition
    assert current.overtake(task("a", 3))
    current = Current(task("a", 3))
    current.start_training()
    current.stop_training()
    assert not current.overtake(task("a", 4))  # the trainer is somebody else's by now


def test_the_turn_goes_to_whoever_waited_longest_and_to_nobody_who_gave_up() -> None:
    turn, served, waiting = Turn(), list[int](), 5
    turn.acquire()

    def wait(number: int) -> None:
        with turn:
            served.append(number)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(waiting)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(lambda: len(turn._line) == number + 1)  # noqa: B023 - waited for at once
        if number == 2:
            assert not turn.acquire(timeout=0.01)
    turn.release()
    for thread in threads:
        thread.join(5)
    assert served == list(range(waiting))
    with pytest.raises(RuntimeError):
        turn.release()


def test_who_gives_up_while_it_waits_for_the_turn_holds_nobody_behind_it() -> None:
    turn, asked = Turn(), list[str]()

    def give_up() -> None:
        asked.append("in line")
        raise Refusal("study-halted", "")

    with turn, pytest.raises(Refusal), turn.awaited(give_up, every_s=0.01):
        pytest.fail("it was not its turn")
    assert asked == ["in line"]
    with pytest.raises(Refusal), turn.awaited(give_up):  # the turn is free, and given back
        pytest.fail("what must not be done has no turn")
    assert turn.acquire(timeout=0)


@given(st.floats(0, 100), st.floats(0.1, 50), st.floats(0.1, 10))
def test_an_answer_after_its_deadline_still_waits_for_its_multiple(
    took: float, allowed: float, bucket: float
) -> None:
    at = release_at(took, arrived=0.0, deadline=allowed, bucket=bucket)
    assert at >= took
    if took >= allowed:
        assert at / bucket == pytest.approx(round(at / bucket), abs=1e-6)


def training(peer: Peer, trainer: SmallTrainer, asked: Task) -> None:
    """Send a request and wait until the trainer works on it."""
    trainer.entered.clear()
    trainer.release.clear()
    peer.send(asked)
    assert trainer.entered.wait(5)


def codes(peer: Peer) -> list[tuple[int, str]]:
    return [(given.fields["round"], given.fields["code"]) for given in peer.given]


def test_a_later_round_ends_the_training_of_the_one_before_which_stays_paid_for(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    approve(agent, STUDY)
    training(peer, trainer, peer.first_task(STUDY, 1))
    peer.send(peer.first_task(STUDY, 2))
    wait_until(lambda: len(peer.given) == 2)
    assert codes(peer) == [(1, "superseded"), (2, "")]
    assert trainer.interrupted == [STUDY.digest]
    assert [r.output_digest != "" for r in held(agent).reservations] == [False, True]
    assert ("request-refused", "superseded") in audit_of(agent)
    assert len(list(agent.node.store.spool.iterdir())) == 1


@pytest.mark.parametrize("number", [1, 99])
def test_a_repetition_and_what_the_gate_refuses_end_no_training(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer, number: int
) -> None:
    first = peer.first_task(approve(agent, STUDY))
    training(peer, trainer, first)
    takes = peer.takes
    peer.send(replace(first, round=number, attempt=2))
    wait_until(lambda: peer.takes > takes + 1)
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 2)
    assert codes(peer) == [(1, ""), (number, "" if number == 1 else "round-out-of-range")]
    assert trainer.interrupted == []
    assert held(agent).rounds_used == 1


def test_what_is_paid_for_is_trained_to_its_end_and_a_repetition_costs_nothing(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    asked = replace(peer.first_task(approve(agent, STUDY)), deadline_s=0.5)
    training(peer, trainer, asked)
    end = agent.node.monotonic() + 0.6
    wait_until(lambda: agent.node.monotonic() > end)
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 1)  # late: what the coordinator does with it is its own
    again = peer.request(asked, attempt=2, deadline_s=20.0)
    assert again.fields["code"] == ""
    assert trainer.timeouts == [agent.node.settings.trainer.timeout_s]
    assert held(agent).rounds_used == 1


def test_two_studies_take_turns_however_often_one_of_them_asks(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    for study in (STUDY, OTHER):
        approve(agent, study)
    training(peer, trainer, peer.first_task(STUDY, 1))
    for _ in range(8):
        peer.send(peer.first_task(STUDY, 1))
    peer.send(peer.first_task(OTHER, 1))
    wait_until(lambda: len(agent.node.trainer_turn._line) == 1)
    trainer.release.set()
    wait_until(lambda: len(peer.given) == 3)
    order = [given.fields["study"] for given in peer.given]
    assert (order.count(STUDY.digest), order.count(OTHER.digest)) == (2, 1)
    assert [wish.study for wish in trainer.trained] == [STUDY.digest, OTHER.digest]


def test_an_answer_of_one_study_is_kept_while_another_one_s_round_begins(
    agent: Agent, peer: Peer, approve: Approve, trainer: SmallTrainer
) -> None:
    for study in (STUDY, OTHER):
        approve(agent, study)
    asked = peer.first_task(STUDY, 1)
    first = peer.request(asked)
    peer.request(peer.first_task(OTHER, 1))
    again = peer.request(asked, attempt=2)
    assert (again.fields["code"], again.fields["update"]) == ("", first.fields["update"])


def test_what_an_earlier_process_left_of_old_rounds_is_dropped(
    start: Callable[[], Agent], peer: Peer, approve: Approve
) -> None:
    approve(start(), STUDY)
    peer.request(peer.first_task(STUDY, 1))
    agent = start()
    peer.request(peer.first_task(STUDY, 2))
    assert len(list(agent.node.store.spool.iterdir())) == 1


def closed(settings: SiteSettings, now: float) -> SiteSettings:
    """Return the settings with an hour's window that opens two hours from now."""
    opens = now + 7200
    hours = [f"{int(at // 3600 % 24):02}:{int(at // 60 % 60):02}" for at in (opens, opens + 3600)]
    windows = {"windows": ("-".join(hours),), "timezone": "UTC"}
    return settings.model_copy(update={"trainer": settings.trainer.model_copy(update=windows)})


def test_outside_its_window_a_site_says_when_it_opens_and_declines_to_begin(
    settings: SiteSettings, trainer: SmallTrainer, peer: Peer, approve: Approve
) -> None:
    def node(settings: SiteSettings) -> AbstractContextManager[Agent]:
        return open_node(settings, lambda _: trainer, threading.Event())

    with node(settings) as agent:
        asked = peer.first_task(approve(agent, STUDY))
        done = peer.request(asked)
        assert peer.opens_at == 0
    now = time.time()
    with node(closed(settings, now)) as agent:
        assert peer.request(peer.first_task(STUDY, 2)).fields["code"] == "outside-window"
        assert 7100 < peer.opens_at - now <= 7260
        assert held(agent).rounds_used == 1
        again = peer.request(asked, attempt=2)  # what is stored is sent at any hour
        assert (again.fields["code"], again.receipt) == ("", done.receipt)
    with node(settings):
        assert peer.request(peer.first_task(STUDY, 2)).fields["code"] == ""
