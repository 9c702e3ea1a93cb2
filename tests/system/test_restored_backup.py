"""An old copy of a site's state is put back: the others remember, and nothing is spent twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from larrey_client.ledger_pages import ledger_view
from larrey_client.settings import load_settings
from larrey_client.store import open_readonly
from larrey_lab.federation.processes import run_command
from larrey_protocol.signed import Certificate
from tests.system.hospitals import PRIVATE, Facts, Hospitals, make_study

pytestmark = pytest.mark.system

SITE = "delta"
ONCE: Facts = {"training": {"rounds": 1, "spare_rounds": 0, "learning_rate": 1.0}}
ONCE["privacy"] = PRIVATE


def put_back(hospitals: Hospitals, copy: Path) -> None:
    """Exchange the site's state for an earlier one while no node runs."""
    state = load_settings(hospitals.config(SITE)).site.state
    shutil.rmtree(state)
    shutil.copytree(copy, state)


def budget(hospitals: Hospitals) -> Facts:
    """Return the site's only family as its ledger on disk has it."""
    settings = load_settings(hospitals.config(SITE))
    connection = open_readonly(settings.site.state)
    try:
        (view,) = ledger_view(connection, settings)
        return view
    finally:
        connection.close()


def outcome(certificate: Certificate) -> tuple[str, str]:
    """Return what the site did in the study's one round, and why."""
    (cell,) = [cell for cell in certificate.matrix if cell.site == SITE]
    return cell.outcome, cell.code


def adopt(hospitals: Hospitals) -> str:
    key = hospitals.federation.workspace.site_key(SITE, "dpo")
    words = ("ledger", "adopt", "--key", str(key), "--config", str(hospitals.config(SITE)))
    done = run_command("larrey-site", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_site_restored_from_an_old_copy_refuses_until_its_officer_adopts(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    lost, refused = make_study("lost", **ONCE), make_study("refused", **ONCE)
    for study in (lost, refused):
        hospitals.propose(study)
    hospitals.federation.kill(SITE)
    before = budget(hospitals)["used_share"]
    state = load_settings(hospitals.config(SITE)).site.state
    shutil.copytree(state, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    hospitals.federation.start_sites([SITE])
    with hospitals.operator() as operator:
        operator.launch(lost.digest)
    assert outcome(hospitals.finish(lost.digest)) == ("contributed", "")
    spent = budget(hospitals)["used_share"]
    assert spent > before

    hospitals.federation.kill(SITE)
    put_back(hospitals, tmp_path / "copy")
    hospitals.federation.start_sites([SITE])
    assert budget(hospitals)["used_share"] == before
    with hospitals.operator() as operator:
        operator.launch(refused.digest)
    assert outcome(hospitals.finish(refused.digest)) == ("refused", "ledger-behind")
    assert budget(hospitals)["used_share"] == before  # a refusal spends nothing

    hospitals.federation.kill(SITE)
    assert "cohort" in adopt(hospitals)
    adopted = budget(hospitals)
    assert (adopted["used_share"], adopted["is_adopted"]) == (spent, True)
    hospitals.federation.start_sites([SITE])
    after = hospitals.launch(make_study("after", **ONCE))
    assert outcome(hospitals.finish(after)) == ("contributed", "")
    assert budget(hospitals)["used_share"] > spent
