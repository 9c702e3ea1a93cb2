"""What a site keeps for an algorithm: which of its own states is in force, whatever is said."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from larrey_client.site_states import FOLDER, SiteStates

STUDY = "sha256:" + "ab" * 32


@pytest.fixture
def states(tmp_path: Path) -> SiteStates:
    return SiteStates(tmp_path)


def keep(states: SiteStates, number: int, text: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        states.keep(STUDY, number, file.fileno())


def in_force(states: SiteStates, applied: int, *committed: int) -> bytes | None:
    file = states.in_force(STUDY, applied, committed)
    if file is None:
        return None
    try:
        return os.pread(file, 100, 0)
    finally:
        os.close(file)


def test_nothing_is_in_force_before_the_first_round(states: SiteStates) -> None:
    assert in_force(states, 0) is None
    assert in_force(states, 7) is None


def test_a_state_is_in_force_once_its_update_was_committed_and_applied(states: SiteStates) -> None:
    keep(states, 1, b"one")
    assert in_force(states, 1, 1) == b"one"
    keep(states, 2, b"two")
    assert in_force(states, 1, 1, 2) == b"one"  # round 2 was not applied with it: it goes
    assert in_force(states, 2, 1, 2) == b"one"


def test_a_state_that_no_commit_followed_is_never_in_force(states: SiteStates) -> None:
    keep(states, 1, b"one")
    keep(states, 2, b"killed before the commit")
    assert in_force(states, 2, 1) == b"one"


def test_a_repeated_request_finds_the_same_state(states: SiteStates) -> None:
    keep(states, 1, b"one")
    keep(states, 2, b"two")
    assert in_force(states, 2, 1, 2) == b"two"
    keep(states, 3, b"killed before the commit")
    assert in_force(SiteStates(states._folder.parent), 2, 1, 2) == b"two"  # after a restart


def test_a_lie_gives_an_own_state_or_none(states: SiteStates) -> None:
    keep(states, 1, b"one")
    keep(states, 2, b"two")
    assert in_force(states, 99, 1, 2) == b"two"
    assert in_force(states, 0, 1, 2) is None


def test_half_a_state_is_no_state(states: SiteStates, tmp_path: Path) -> None:
    keep(states, 1, b"one")
    (tmp_path / FOLDER / STUDY[7:] / "00002.part").write_bytes(b"tw")
    assert in_force(states, 2, 1, 2) == b"one"


def test_all_is_named_and_deleted(states: SiteStates, tmp_path: Path) -> None:
    keep(states, 1, b"one")
    assert [size for _, size in states.kept(STUDY)] == [3]
    states.forget(STUDY)
    assert states.kept(STUDY) == []
    assert list((tmp_path / FOLDER).iterdir()) == []
