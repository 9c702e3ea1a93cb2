"""Nothing but the journal grows over a study's rounds: counts here, bytes in `make soak`."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.soak import Fault, Run, figures, make_stand, plan, study_of
from tests.chaos.vitals import Vitals, alike, look

SITES = ("alpha", "beta", "gamma")
ROUNDS = 30
LOOK = Vitals(1, (1, 2), (100, 50), 10, 5, 1000, 4096)


def test_the_sites_that_are_looked_at_are_never_killed() -> None:
    faults = plan(500, SITES, 0.5, random.Random(1))
    assert {fault.site for fault in faults if fault.kind.startswith("kill-")} == {"", "gamma"}
    assert {fault.site for fault in faults if fault.kind == "stall-node"} == set(SITES)


def test_a_coordinator_is_killed_before_the_looks_count() -> None:
    faults = plan(500, SITES, 0.5, random.Random(1))
    kills = [fault.round for fault in faults if fault.kind == "kill-coordinator"]
    assert len(kills) == 3
    assert max(kills) < 50


def test_processes_that_were_started_again_are_not_compared() -> None:
    looks = [replace(LOOK, round=n, pids=(1, 2 if n < 20 else 3)) for n in range(30)]
    assert [one.round for one in alike(looks, 10)] == list(range(20, 30))


def test_a_look_at_this_process_sees_an_open_file(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "blob").write_bytes(bytes(100))
    before = look(1, os.getpid(), tmp_path)
    with (tmp_path / "open").open("w"):
        during = look(1, os.getpid(), tmp_path)
    assert during.files == before.files + 1
    assert during.spool == 100
    assert during.memory > 1 << 20


@pytest.mark.system
def test_files_threads_and_spools_stay_as_they_are(tmp_path: Path) -> None:
    faults = [
        Fault(4, "stall-coordinator", "", 0.5),
        Fault(8, "kill-worker"),
        Fault(12, "kill-node", "gamma"),
        Fault(18, "stall-node", "beta", 0.3),
    ]
    with make_stand(tmp_path, SITES) as stand:
        ran = Run(stand, study_of(SITES, ROUNDS), faults, lambda _: None)()
    assert list(ran.struck) == faults
    found = figures(ran, since=ROUNDS // 5)
    assert found["files_growth"] <= 1  # of a poll that comes or goes
    assert found["threads_growth"] <= 2  # pools start what they need, up to their bound
    assert found["spool_most_models_coordinator"] < 2 * len(SITES) + 2  # of two rounds
    assert found["spool_most_models_node"] < 4
