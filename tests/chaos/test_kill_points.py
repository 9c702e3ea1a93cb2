"""A killed process costs a study nothing but, at worst, one paid reservation of its site."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.kills import make_stand, quantile, run_seeded
from tests.chaos.points import PROCESSES, labels_in_source, points, sample
from tests.chaos.recovery import kills_at_coordinator, kills_at_site
from tests.chaos.stand import Mark

_SAMPLE = 5  # as many as fit into the suite; `make chaos-kills` tries all
_SLOWEST_POLL_S = 20.0  # beside other tests; `make chaos-kills` holds the promised seconds


def marks(*labels: str) -> list[Mark]:
    """Return one mark a second; "2:label" is of process 2, others are of process 1."""
    found = []
    for at, text in enumerate(labels):
        pid, _, label = text.rpartition(":")
        found.append(Mark(float(at), int(pid or 1), label))
    return found


def test_each_label_in_the_source_is_an_entry_and_each_entry_a_label() -> None:
    labels, listed = labels_in_source(), [point.label for point in points()]
    assert sorted(labels) == sorted(listed)


def test_no_less_than_thirty_points_lie_over_all_four_processes() -> None:
    processes = [point.process for point in points()]
    assert len(processes) >= 30
    assert set(processes) == set(PROCESSES)
    assert min(processes.count(process) for process in PROCESSES) >= 3


def test_a_sample_has_a_point_of_each_process() -> None:
    chosen = sample(points(), _SAMPLE, random.Random(0))
    assert len(chosen) == len(set(chosen)) == _SAMPLE
    assert {point.process for point in chosen} == set(PROCESSES)


@pytest.mark.parametrize(
    ("before", "spends"),
    [
        (["agent.task-taken"], False),
        (["agent.task-taken", "agent.reserving"], False),
        (["agent.task-taken", "agent.reserved"], True),
        (["agent.reserved", "2:trainer.training-begun"], True),
        (["agent.reserved", "agent.answer-committing"], True),
        (["agent.reserved", "agent.answer-committed"], False),
        (["agent.reserved", "killed agent.trained", "3:agent.task-taken"], False),
    ],
)
def test_a_kill_spends_between_reserve_and_commit_alone(before: list[str], spends: bool) -> None:
    found = kills_at_site("alpha", marks(*before, "killed agent.polling"))
    assert found[-1].spends is spends


def test_recovery_is_told_beside_the_imports_of_the_new_trainer() -> None:
    lived = marks(
        "agent.task-taken", "killed agent.reserved", "2:started", "3:started", "2:agent.polling",
        "3:trainer.warmed", "3:trainer.training-begun",
    )  # fmt: skip
    (kill,) = kills_at_site("alpha", lived)
    assert (kill.poll_s, kill.import_s, kill.train_s) == (3.0, 2.0, 3.0)


def test_what_was_answered_is_not_awaited_again() -> None:
    lived = marks(
        "agent.task-taken", "agent.reserved", "agent.answer-committed", "killed agent.uploaded",
        "2:agent.polling", "2:agent.task-taken", "3:trainer.training-begun",
    )  # fmt: skip
    (kill,) = kills_at_site("alpha", lived)
    assert (kill.poll_s, kill.train_s) == (1.0, None)


def test_a_dead_coordinator_is_back_when_it_hands_over_a_task() -> None:
    lived = marks(
        "coordinator.task-handed-over", "killed coordinator.reply-read", "2:aggregator.started",
        "3:coordinator.task-sent", "3:coordinator.task-handed-over", "killed aggregator.answered",
    )  # fmt: skip
    found = kills_at_coordinator(lived)
    assert [(kill.label, kill.coordinator_s) for kill in found] == [
        ("coordinator.reply-read", 3.0),
        ("aggregator.answered", None),
    ]


@pytest.mark.system
def test_a_study_in_which_all_four_processes_die_ends_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    chance = random.Random(int(os.environ.get("LARREY_CHAOS_SEED", "1")))
    chosen = sample(points(), _SAMPLE, chance)
    said: list[str] = []
    with make_stand(tmp_path) as stand:
        ran = run_seeded(stand, chosen, chance, said.append)  # checks all that must hold
        assert said == [point.label for point in chosen]
        polls = sorted(kill.poll_s for kill in ran.kills if kill.poll_s is not None)
        assert quantile(polls, 1.0) <= _SLOWEST_POLL_S
