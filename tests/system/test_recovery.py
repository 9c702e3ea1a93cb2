"""Programs are killed without warning in the middle of a study; the study goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from larrey_protocol.signed import Certificate
from tests.system.hospitals import SITES, Hospitals, descendants, is_alive, make_study, until

pytestmark = pytest.mark.system


def missed(certificate: Certificate, site: str) -> dict[int, str]:
    """Return the rounds in which a site did not contribute, and why."""
    return {
        cell.round: cell.code or cell.outcome
        for cell in certificate.matrix
        if cell.site == site and cell.outcome != "contributed"
    }


def trainer_of(agent: int) -> int:
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(agent)}
    return next(pid for pid, command in commands.items() if b"larrey_client.trainer" in command)


def test_a_study_goes_on_without_a_killed_site_and_says_so(hospitals: Hospitals) -> None:
    study = make_study("outage")
    hospitals.hold("delta")
    digest = hospitals.launch(study)
    hospitals.await_round(digest, 1, alpha="answered", delta="working")
    hospitals.federation.kill("delta")
    killed_at = time.monotonic()
    certificate = hospitals.finish(digest)
    assert time.monotonic() - killed_at < study.file.rounds.deadline_s / 4
    assert (certificate.outcome, certificate.rounds_applied) == ("PARTIAL", 3)
    assert missed(certificate, "delta") == dict.fromkeys((1, 2, 3), "absent")
    assert not any(missed(certificate, site) for site in SITES[:3])


def test_a_killed_site_joins_later_rounds_when_it_is_started_again(hospitals: Hospitals) -> None:
    hospitals.hold("delta")
    digest = hospitals.launch(make_study("return"))
    hospitals.await_round(digest, 1, alpha="answered", delta="working")
    until(lambda: hospitals.rounds_used("delta", digest) == 1)
    hospitals.hold("alpha")  # keeps round 2 open
    hospitals.federation.kill("delta")
    before = hospitals.proofs("delta")
    hospitals.await_round(digest, 2, alpha="working", delta="away")
    hospitals.release("delta")
    hospitals.federation.start_sites(["delta"])
    hospitals.await_round(digest, 2, alpha="working", delta="answered")
    hospitals.release("alpha")
    certificate = hospitals.finish(digest)
    assert missed(certificate, "delta") == {1: "absent"}
    after = hospitals.proofs("delta")  # every receipt's ledger head is still in the chain
    assert after["receipts"] == before["receipts"] + 2
    assert hospitals.rounds_used("delta", digest) == 3


def test_a_kill_between_reserve_and_commit_costs_exactly_one_reservation(
    hospitals: Hospitals,
) -> None:
    hospitals.hold("alpha")
    digest = hospitals.launch(make_study("reserve", rounds={"quorum": 4, "deadline_s": 60.0}))
    hospitals.await_round(digest, 1, alpha="working", beta="answered")
    until(lambda: hospitals.rounds_used("alpha", digest) == 1)
    hospitals.federation.kill("alpha")
    assert hospitals.rounds_used("alpha", digest) == 1
    hospitals.federation.start_sites(["alpha"])
    until(lambda: hospitals.rounds_used("alpha", digest) == 2)
    hospitals.release("alpha")
    assert hospitals.finish(digest).outcome == "COMPLETE"
    assert [hospitals.rounds_used(site, digest) for site in SITES] == [4, 3, 3, 3]
    assert hospitals.proofs("alpha")["is_intact"]


def test_a_study_resumes_after_the_coordinator_was_killed(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    study = make_study("resume")
    hospitals.hold("beta")
    digest = hospitals.launch(study)
    hospitals.await_round(digest, 1, alpha="answered", beta="working")
    hospitals.hold("alpha")
    hospitals.release("beta")
    hospitals.await_round(digest, 2, alpha="working", beta="answered")
    hospitals.federation.kill("coordinator")
    hospitals.release("alpha")  # its answer is ready while nobody is there to take it
    hospitals.federation.start_coordinator()
    certificate = hospitals.finish(digest)
    assert (certificate.outcome, certificate.rounds_applied) == ("COMPLETE", 3)
    model = hospitals.model(study, -1, tmp_path)
    np.testing.assert_allclose(model, 3.0, rtol=1e-6)  # each round adds one, once
    assert [hospitals.rounds_used(site, digest) for site in SITES] == [3, 3, 3, 3]


def test_a_killed_trainer_costs_one_round_and_never_the_node(hospitals: Hospitals) -> None:
    hospitals.hold("alpha")
    digest = hospitals.launch(make_study("trainer"))
    hospitals.await_round(digest, 1, alpha="working", beta="answered")
    until(lambda: hospitals.rounds_used("alpha", digest) == 1)
    agent = hospitals.federation.processes["alpha"]
    os.kill(trainer_of(agent), signal.SIGKILL)
    hospitals.await_round(digest, 2, alpha="working")
    hospitals.release("alpha")
    certificate = hospitals.finish(digest)
    assert missed(certificate, "alpha") == {1: "trainer-crashed"}
    assert is_alive(agent)


@pytest.mark.parametrize("program", ["coordinator", "gamma"])
def test_a_killed_program_leaves_no_process_behind(hospitals: Hospitals, program: str) -> None:
    started = descendants(hospitals.federation.processes[program])
    assert started
    hospitals.federation.kill(program)
    until(lambda: not any(map(is_alive, started)), 5)
