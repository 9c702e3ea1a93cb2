"""What is told about barriers: nothing that a kernel refused is called enforced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from larrey_client.confinement.barriers import BARRIERS, Isolation
from larrey_client.confinement.process import memory_limit
from larrey_client.explain import explain_isolation


@pytest.mark.system
def test_a_kernel_that_refuses_is_named_barrier_by_barrier() -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "apps" / "poor_kernel.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    missing = json.loads(done.stdout)
    assert set(missing) == {"namespace", "landlock", "landlock-tcp", "landlock-scope"}
    assert missing["namespace"] == "the kernel says no"
    assert "barrier=landlock" in done.stderr


def test_what_a_process_does_not_report_does_not_stand() -> None:
    told = Isolation.parse({"core": "", "filter": 3, "memory": "no\nlimit" * 99, "magic": ""})
    assert told.stands == ("core",)
    assert set(told.reasons) == set(BARRIERS)
    assert told.missing["namespace"] == told.missing["filter"] == "not reported"
    assert len(told.missing["memory"]) <= 120
    assert "\n" not in told.missing["memory"]
    assert Isolation.parse(["core"]).stands == ()


def test_a_person_reads_what_is_not_enforced_here_and_why() -> None:
    lines = explain_isolation(
        {"stands": ["filter", "core"], "missing": {"landlock": "the kernel\nsays no"}}
    )
    assert lines[0].split() == ["isolation", "filter,", "core"]
    assert lines[1].strip() == "not enforced here: landlock (the kernel says no)"
    assert len(explain_isolation({"stands": ["filter"], "missing": {}})) == 1


def test_a_trainer_gets_the_memory_it_was_given_or_leaves_a_headroom() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert memory_limit(2048) == 2 << 30
    assert 0 < memory_limit(None) < total
