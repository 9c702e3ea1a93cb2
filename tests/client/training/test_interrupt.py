"""A stop ends a real trainer in the middle of a long step, and only the one that is meant."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from larrey_client.trainer_link import TrainerLink
from larrey_protocol.errors import LarreyError
from larrey_protocol.study import Study
from tests.client.training.test_trainer import _train

MODEL = np.zeros(5, np.float32)


@pytest.fixture
def busy(
    make_study: Callable[..., Study], table: Path, apps: str, cold_link: TrainerLink
) -> tuple[TrainerLink, Study]:
    study = make_study(app="bad")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:hangs")
    return cold_link, study


def test_an_interrupt_ends_a_busy_trainer_at_once_and_says_so(
    busy: tuple[TrainerLink, Study],
) -> None:
    link, study = busy
    at: list[float] = []

    def stop() -> None:
        at.append(time.monotonic())
        link.interrupt(study.digest)

    threading.Timer(0.3, stop).start()
    with pytest.raises(LarreyError, match="trainer-interrupted"):
        _train(link, study, MODEL)
    assert time.monotonic() - at[0] < 2
    assert not link.alive


def test_a_stop_between_the_gate_and_the_training_is_not_missed(
    busy: tuple[TrainerLink, Study],
) -> None:
    link, study = busy
    link.admit(study.digest)  # the gate is asked now, and knows of no stop
    link.interrupt(study.digest)
    for _ in range(2):
        with pytest.raises(LarreyError, match="trainer-interrupted"):
            _train(link, study, MODEL)


def test_an_admitted_study_trains_again_in_a_fresh_process(
    make_study: Callable[..., Study], table: Path, apps: str, cold_link: TrainerLink
) -> None:
    study = make_study(app="shift")
    cold_link.load(study, site="alpha", data=table, app=f"{apps}:plus_one")
    first = cold_link.pid
    cold_link.interrupt()
    cold_link.admit(study.digest)
    assert _train(cold_link, study, MODEL).tolist() == [1.0] * 5
    assert cold_link.pid != first


def test_a_stop_of_another_study_ends_nothing(busy: tuple[TrainerLink, Study]) -> None:
    link, _ = busy
    link.interrupt("sha256:" + "0" * 64)
    assert link.alive


def test_after_all_were_stopped_each_study_is_admitted_for_itself(
    busy: tuple[TrainerLink, Study],
) -> None:
    link, study = busy
    link.interrupt()
    link.admit("sha256:" + "0" * 64)
    with pytest.raises(LarreyError, match="trainer-interrupted"):
        _train(link, study, MODEL)
