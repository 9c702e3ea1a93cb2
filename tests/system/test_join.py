"""From nothing to a hospital that is connected, and out again, over real processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from bench.joining import Trial, silence
from larrey_client.cli import main as larrey_site
from larrey_client.settings import load_settings
from larrey_server.cli import main as larrey

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with Trial(tmp_path_factory.mktemp("trial")) as running:
        yield running


def state_of(trial: Trial, site: str) -> str:
    """Return what the consortium sees of a site's membership."""
    shown = trial.run("larrey", "sites", "show", site, "--json", "--operator", str(trial.operator))
    return str(json.loads(shown)["state"])


def test_a_hospital_joins_with_two_commands_and_is_revoked_with_one(trial: Trial) -> None:
    invitation, home = trial.invite("st-mary"), trial.folder / "st-mary"
    data = trial.folder / "cohort.csv"
    data.write_text("pid,y\n")
    join = ("join", str(invitation), "--dir", str(home), "--yes")
    began = time.monotonic()
    trial.run("larrey-site", *join, "--data", str(data))
    assert state_of(trial, "st-mary") == "active"
    silence(home / "site.toml")
    trial.start("st-mary", "larrey-site", "run", "--config", str(home / "site.toml"))
    trial.until(lambda: bool(trial.status(home).get("is_connected")))
    assert time.monotonic() - began < 30
    assert trial.status(home)["certificate_days"] in {89, 90}
    trial.run("larrey", "sites", "revoke", "st-mary", "--operator", str(trial.operator))
    began = time.monotonic()
    trial.until(lambda: trial.status(home).get("trouble") == "certificate-refused")
    assert time.monotonic() - began < 10  # the promise is 60 s
    trial.stop("st-mary")
    trial.stop("coordinator")
    trial.start("coordinator", "larrey", "serve", "--config", str(trial.coordinator))
    trial.until(lambda: trial.log("coordinator").read_text().count("ready") == 2)
    assert state_of(trial, "st-mary") == "revoked"


def test_a_used_invitation_admits_nobody_else(
    trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = str(trial.folder / "used.invite"), trial.folder
    assert larrey(["invite", "used", "--out", out, "--operator", str(trial.operator)]) == 0
    assert larrey_site(["join", out, "--dir", str(folder / "first"), "--yes"]) == 0
    assert larrey_site(["join", out, "--dir", str(folder / "other"), "--yes"]) == 1
    assert "invitation-used" in capsys.readouterr().err
    assert not (folder / "other" / "site.toml").exists()


def test_a_hospital_joins_where_mail_is_the_only_channel(trial: Trial) -> None:
    folder, operator = trial.folder, ("--operator", str(trial.operator))
    invite, request, answer = (str(folder / name) for name in ("mail.invite", "r.json", "a.json"))
    home = ("--dir", str(folder / "by-mail"))
    assert larrey(["invite", "by-mail", "--out", invite, *operator]) == 0
    assert larrey_site(["join", "--offline", invite, "--out", request, *home, "--yes"]) == 0
    assert larrey(["sites", "admit", request, "--out", answer, *operator]) == 0
    assert larrey_site(["join", "--finish", answer, *home]) == 0
    assert load_settings(folder / "by-mail" / "site.toml").site.name == "by-mail"
    assert state_of(trial, "by-mail") == "active"


def test_a_hospital_is_a_member_of_two_federations_with_one_node(
    trial: Trial, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = trial.folder / "twice"
    with Trial(tmp_path_factory.mktemp("north")) as north:
        join = ("--dir", str(home), "--yes")
        trial.run("larrey-site", "join", str(trial.invite("twice")), *join)
        invited = str(north.invite("twice"))
        trial.run("larrey-site", "join", invited, *join, "--membership", "north")
        silence(home / "site.toml")
        trial.start("twice", "larrey-site", "run", "--config", str(home / "site.toml"))
        trial.until(lambda: members(trial) == {"first": True, "north": True})
        north.stop("coordinator")
        trial.until(lambda: members(trial) == {"first": True, "north": False})
        trial.stop("twice")


def members(trial: Trial) -> dict[str, bool]:
    """Return which coordinators the node of ``twice`` is connected to."""
    found = trial.status(trial.folder / "twice").get("memberships", ())
    return {one["name"]: one["is_connected"] for one in found}
