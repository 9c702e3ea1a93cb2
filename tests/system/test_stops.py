"""Stops over real processes: a trainer dies at once, kills change nothing, receipts verify."""

from __future__ import annotations

import json
import time

import pytest

from larrey_client.settings import load_settings
from larrey_lab.federation.processes import run_command
from larrey_protocol.decisions import DeletionReceipt
from larrey_protocol.keys import SigningKey
from larrey_protocol.signed import Signed, open_signed
from tests.system.hospitals import SITES, Hospitals, is_alive, make_study, until
from tests.system.test_recovery import missed, trainer_of

pytestmark = pytest.mark.system


def busy_trainer(hospitals: Hospitals, site: str, digest: str) -> int:
    """Return the trainer of a site once it works on a study, and will until it is released."""
    until(lambda: hospitals.rounds_used(site, digest) == 1)
    return trainer_of(hospitals.federation.processes[site])


def actions(hospitals: Hospitals, site: str) -> list[str]:
    return [str(record["action"]) for record in hospitals.audit(site)]


def test_a_halt_by_the_consortium_ends_trainers_survives_kills_and_is_resumed(
    hospitals: Hospitals,
) -> None:
    hospitals.hold("alpha")
    digest = hospitals.launch(make_study("halted"))
    others = dict.fromkeys(SITES[1:], "answered")
    hospitals.await_round(digest, 1, alpha="working", **others)
    trainer = busy_trainer(hospitals, "alpha", digest)
    ordered_at = time.monotonic()
    with hospitals.operator() as operator:
        operator.command(digest, "halt")
    until(lambda: not is_alive(trainer), 10)
    assert time.monotonic() - ordered_at < 10  # the promise; a second on a quiet machine
    hospitals.release("alpha")
    hospitals.federation.kill("coordinator")
    hospitals.federation.start_coordinator()
    facts = hospitals.status(digest)
    assert (facts["state"], facts["applied"], facts["stop_by"]) == ("halted", 0, "ada")
    with hospitals.operator() as operator:
        operator.command(digest, "resume")
    certificate = hospitals.finish(digest)
    assert (certificate.outcome, certificate.rounds_applied) == ("COMPLETE", 3)
    used = [hospitals.rounds_used(site, digest) for site in SITES]
    assert used == [4, 3, 3, 3]  # the cut training stays spent, stored answers cost nothing
    assert {hospitals.proofs(site)["is_intact"] for site in SITES} == {True}


def test_a_site_halts_alone_survives_a_kill_and_only_its_own_people_resume_it(
    hospitals: Hospitals,
) -> None:
    hospitals.hold("beta")
    hospitals.hold("alpha")  # keeps the first round open
    digest = hospitals.launch(make_study("alone"))
    hospitals.await_round(digest, 1, alpha="working", beta="working", gamma="answered")
    trainer = busy_trainer(hospitals, "beta", digest)
    halted_at = time.monotonic()
    hospitals.ask("beta", "halt", study=digest)
    assert time.monotonic() - halted_at < 1
    until(lambda: not is_alive(trainer), 10)
    hospitals.await_round(digest, 1, beta="refused")
    hospitals.federation.kill("beta")
    hospitals.release("beta")
    hospitals.federation.start_sites(["beta"])
    hospitals.hold("gamma")  # keeps the second round open
    hospitals.release("alpha")
    hospitals.await_round(digest, 2, beta="refused", gamma="working")
    config = hospitals.config("beta")
    key = str(config.parent / "people" / "it.key")
    done = run_command("larrey-site", "resume", digest, "--key", key, "--config", str(config))
    assert done.returncode == 0, done.stderr
    hospitals.release("gamma")
    certificate = hospitals.finish(digest)
    assert missed(certificate, "beta") == {1: "site-not-ready", 2: "site-not-ready"}
    assert certificate.rounds_applied == 3
    halts = [r for r in hospitals.audit("beta") if r["action"] == "site-halt"]
    assert [record["study"] for record in halts].count(digest) == 1


def test_a_closed_study_is_deleted_everywhere_and_every_receipt_verifies(
    hospitals: Hospitals,
) -> None:
    digest = hospitals.launch(make_study("closed"))
    hospitals.finish(digest)
    with hospitals.operator() as operator:
        operator.command(digest, "close")

    def deleters() -> set[str]:
        return {entry["by"] for entry in hospitals.status(digest)["deletions"]}

    until(lambda: deleters() == {"coordinator", *SITES})
    assert not (hospitals.folder / "coordinator" / "state" / "studies" / digest[7:19]).exists()
    for site in SITES:
        settings = load_settings(hospitals.config(site))
        signed = Signed.from_bytes(
            (settings.site.state / "receipts" / f"{digest[7:19]}.deletion.json").read_bytes()
        )
        key = SigningKey.load(settings.identity.signing_key).public
        receipt = open_signed(signed, DeletionReceipt, key)
        assert (receipt.by, receipt.study) == (site, digest)
        answers = [item for item in receipt.items if item.kind == "answer"]
        assert answers
        spool = settings.site.state / "spool"
        assert not any((spool / item.digest[7:]).exists() for item in answers)
    assert json.loads(signed.document)["by"] == SITES[-1]
