"""The figures of all chaos and of the soak say what the parts found, the bad as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import chaos, fragments, soak
from bench.fragments import Fragment
from bench.harness import finish

KILLS = {
    "kills": 90, "kill_points": 55, "kill_points_hit": 55, "rounds_lost": 0,
    "released_without_debit": 0, "debits_for_resending": 0, "epsilon_lost_to_crashes": 0.25,
    "recovery_seconds": [1.0, 2.0, 3.0], "recovery_seconds_p95": 3.0, "import_seconds": [1.5],
    "training_recovery_seconds": [1.0], "training_recovery_seconds_p95": 1.0,
    "coordinator_recovery_seconds": [], "coordinator_recovery_seconds_p95": 0.0,
}  # fmt: skip
STORM = {
    "faults": {"reset": 3, "stall": 2}, "seconds_lost_a_fault": {"reset": 0.5, "stall": 1.0},
    "schedules_run": 2, "schedules_survived": 2, "rounds_lost": 0,
}  # fmt: skip
FIELD = {
    "scenarios_played": 2, "scenarios_survived": 1, "seconds": {"slow_site": 8.0},
    "scenarios_not_played": ["full_disk"],
}  # fmt: skip
SOAK = {
    "rounds": 500, "faults_injected": 40, "faults": {"kill-node": 40}, "looks": {"a": 90},
    "memory_growth_ratio_coordinator": 1.01, "memory_growth_ratio_node": 1.2, "files_growth": 0,
    "threads_growth": 0, "memory_growth_ratio_agent": 1.2, "sites": 8,
    "spool_most_models_coordinator": 17.0, "spool_most_models_node": 2.0,
    "journal_slope_ratio": 1.0, "round_seconds": 0.2, "round_seconds_ratio": 1.0, "seconds": 100,
    "journal_bytes_per_round": {"coordinator": 5.0, "site-0": 3.0, "site-1": 4.0},
}  # fmt: skip


def values(*found: Fragment) -> dict[str, float]:
    return {figure.name: figure.value for figure in chaos.figures(found)}


def test_what_parts_found_is_added_up() -> None:
    lost = STORM | {"rounds_lost": 1}
    found = values(Fragment("kills", KILLS, 0, 9.0), Fragment("storm", lost, 1, 5.0))
    assert found["rounds_lost"] == 1
    assert found["kill_points_hit"] == 55
    assert found["epsilon_lost_to_crashes"] == 0.25
    assert found["import_seconds"] == 1.5
    assert found["seconds_storm"] == 5.0
    assert found["faults_survived_share"] == pytest.approx(95 / 96)  # a status is a fault, too


def test_faults_are_counted_once_however_many_lines_tell_of_them() -> None:
    lines = chaos.tallies(Fragment("kills", KILLS, 0, 9.0))
    assert sum(line.injected for line in lines if not line.is_view) == KILLS["kills"]
    assert len(lines) == 3  # all, agents, trainers; no coordinator died


@pytest.mark.parametrize(
    "fragment",
    [
        Fragment("storm", {}, 1, 3.0),
        Fragment("field", FIELD, 1, 3.0),
        Fragment("storm", STORM | {"schedules_survived": 1}, 1, 3.0),
        Fragment("another", {"faults_injected": 4, "faults_survived_share": 0.5}, 0, 3.0),
    ],
)
def test_a_part_that_fails_lowers_the_share_and_is_in_the_table(fragment: Fragment) -> None:
    assert values(fragment)["faults_survived_share"] < 1
    assert fragment.part in chaos.table(chaos.tallies(fragment))


def test_every_part_but_the_soak_belongs_to_chaos() -> None:
    assert {"kills", "storm", "field", "soak"} <= set(fragments.parts())


def test_a_part_that_leaves_nothing_is_told_by_its_status(tmp_path: Path) -> None:
    found = fragments.run("no-such-part", [], 60.0, tmp_path)
    assert (found.facts, found.status) == ({}, 2)


def test_a_part_that_hangs_is_ended(tmp_path: Path) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import time; time.sleep(600)")
    assert fragments.run("kills", [], 0.2, tmp_path, hanging).status == 124


def test_the_soak_fails_where_a_node_grows(tmp_path: Path) -> None:
    found = soak.figures(SOAK)
    assert {figure.name for figure in found if figure.holds is False} == {
        "memory_growth_ratio",
        "memory_growth_ratio_node",
    }
    assert finish("soak", "make soak", found, folder=tmp_path) == 1


def test_only_a_part_that_succeeded_with_the_same_arguments_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "part.py"
    program.write_text(
        "import sys, pathlib\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "(out / 'one.json').write_text('{\"rounds_lost\": 0}')\n"
        "sys.exit('--fail' in sys.argv)\n"
    )
    assert fragments.kept("one", [], tmp_path) is None
    ran = fragments.run("one", [], 60.0, tmp_path, program)
    assert fragments.kept("one", [], tmp_path) == ran
    assert fragments.kept("one", ["--count", "3"], tmp_path) is None
    assert fragments.run("one", ["--fail"], 60.0, tmp_path, program).status == 1
    assert fragments.kept("one", ["--fail"], tmp_path) is None
