"""Two programs never write one state folder; a killed one leaves nothing that keeps it out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from larrey_lab.federation.processes import run_command
from tests.system.hospitals import Hospitals, until

pytestmark = pytest.mark.system

_RECONNECTED_S = 5.0  # after its imports


def elsewhere(config: Path, key: str, copy: Path) -> str:
    """Return a copy of a settings file that differs in one address, so that the port is free."""
    lines = config.read_text().splitlines()
    changed = [f'{key} = "127.0.0.1:0"' if one.startswith(f"{key} =") else one for one in lines]
    assert changed != lines
    copy.write_text("\n".join(changed) + "\n")
    copy.chmod(0o600)
    return str(copy)


def test_a_second_coordinator_on_the_same_state_says_why_it_does_not_start(
    hospitals: Hospitals,
) -> None:
    config = hospitals.federation.workspace.coordinator
    second = elsewhere(config, "address", config.with_name("second.toml"))
    done = run_command("larrey", "serve", "--config", second)
    Path(second).unlink()
    assert done.returncode == 1
    assert "another coordinator has this state folder open [state-locked]" in done.stderr


def test_a_second_node_on_the_same_state_says_why_it_does_not_start(hospitals: Hospitals) -> None:
    done = run_command("larrey-site", "run", "--config", str(hospitals.config("beta")))
    assert done.returncode == 2
    assert "[state-locked]" in done.stderr


def test_a_killed_node_starts_again_and_is_heard_at_once(hospitals: Hospitals) -> None:
    hospitals.federation.kill("gamma")
    hospitals.federation.start_sites(["gamma"])  # no lock, lease or socket of the dead one counts
    ready = time.monotonic()
    until(lambda: hospitals.ask("gamma", "status")["is_connected"], _RECONNECTED_S)
    assert time.monotonic() - ready < _RECONNECTED_S


def test_a_killed_coordinator_starts_again(hospitals: Hospitals) -> None:
    hospitals.federation.kill("coordinator")
    hospitals.federation.start_coordinator()
    until(lambda: hospitals.ask("alpha", "status")["is_connected"])
