"""What would stop a node is told before it does, each with a code and a remedy."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest

from larrey_client.cli import main
from larrey_client.preflight import CHECKS, Chain, Facts, Place, is_ready, judge
from larrey_client.preflight_facts import cgroup_driver, measure
from larrey_client.settings import SiteSettings, load_settings
from larrey_protocol.certificates import issue_client, issue_server, make_authority
from larrey_protocol.keys import write_private
from tests.client.node.conftest import Pki
from tests.client.node.peer import Peer

_CHAIN = Chain("first", "c:1", "", "CN=a", "CN=a", "CN=a", True, 60.0, 30.0)
_STATE = Place("site.state", "/var/lib/larrey", free_bytes=8 << 30)
GOOD = Facts(
    data=(Place("datasets.heart.path", "/data/heart.csv"),),
    state=_STATE,
    writable=("/srv/larrey",),
    chains=(_CHAIN,),
)
_ON_CUDA = replace(GOOD, device="cuda:0", device_answers=True)
NOW = dt.datetime.now(dt.UTC)


def chain(**changes: object) -> Facts:
    return replace(GOOD, chains=(replace(_CHAIN, **changes),))  # type: ignore[arg-type]


def state(**changes: object) -> Facts:
    return replace(GOOD, state=replace(_STATE, **changes))  # type: ignore[arg-type]


CASES = [
    (replace(GOOD, data=(Place("d.path", "/d", "Permission denied"),)), "data-unreadable", "fail"),
    (state(is_readonly=True, trouble="Read-only file system"), "state-read-only", "fail"),
    (state(trouble="Permission denied"), "state-not-writable", "fail"),
    (state(free_bytes=1 << 20), "state-nearly-full", "warn"),
    (replace(GOOD, roots=(Place("d.root", "/var/lib"),)), "state-among-data", "fail"),
    (replace(GOOD, memory_bytes=1 << 29), "memory-small", "warn"),
    (replace(GOOD, shared_bytes=64 << 20, has_apps=True), "shared-memory-small", "warn"),
    (replace(GOOD, shared_bytes=None, has_apps=True), "shared-memory-small", "warn"),
    (replace(_ON_CUDA, device_answers=False), "device-lost", "fail"),
    (replace(_ON_CUDA, cgroup="systemd"), "device-may-vanish", "warn"),
    (replace(_ON_CUDA, cgroup="unknown"), "device-may-vanish", "warn"),
    (chain(trouble="coordinator-untrusted", issuer="CN=b"), "coordinator-untrusted", "fail"),
    (chain(trouble="coordinator-closed"), "coordinator-closed", "fail"),
    (chain(trouble="coordinator-unreachable"), "coordinator-unreachable", "fail"),
    (chain(is_ours_issued=False, ours="CN=old"), "certificate-foreign", "fail"),
    (chain(days_left=-1.0), "certificate-ended", "fail"),
    (chain(days_left=3.0), "certificate-ends-soon", "warn"),
    (chain(days_old=-0.5), "certificate-not-yet-valid", "fail"),
    (replace(GOOD, clock_offset_s=-3600.0), "clock-off", "fail"),
    (replace(GOOD, is_clock_kept=False), "clock-not-kept", "warn"),
]


@pytest.mark.parametrize(("facts", "code", "level"), CASES)
def test_each_fault_is_found_alone_with_its_code_and_a_remedy(
    facts: Facts, code: str, level: str
) -> None:
    (found,) = judge(facts)
    assert (found.code, found.level) == (code, level)
    assert found.remedy
    assert found.check in {check.name for check in CHECKS}
    assert is_ready([found]) is (level == "warn")


@pytest.mark.parametrize(
    "facts",
    [
        GOOD,
        _ON_CUDA,
        replace(GOOD, shared_bytes=64 << 20),  # nothing here uses it
        replace(GOOD, cgroup="systemd"),  # no device to lose
        replace(_ON_CUDA, cgroup="cgroupfs"),
        replace(GOOD, roots=(Place("d.root", "/var/lib/larrey-images"),)),
        replace(GOOD, is_clock_kept=False, clock_offset_s=2.0),  # it is right all the same
    ],
)
def test_a_good_machine_is_left_in_peace(facts: Facts) -> None:
    assert judge(facts) == []


def test_a_read_only_volume_is_told_with_the_setting_and_a_folder_that_can_be_written() -> None:
    (found,) = judge(state(is_readonly=True, path="/data/state"))
    assert "site.state: /data/state" in found.message
    assert "/srv/larrey" in found.remedy


@pytest.mark.parametrize(
    ("text", "is_container", "driver"),
    [
        ("0::/system.slice/docker-4f.scope\n", True, "systemd"),
        ("0::/docker/4f2a\n", True, "cgroupfs"),
        ("0::/\n", True, "unknown"),
        ("0::/user.slice/user-0.slice\n", False, ""),
        ("4:memory:/docker/4f\n", True, ""),  # version 1
    ],
)
def test_the_cgroup_driver_shows_in_the_name_of_the_group(
    text: str, is_container: bool, driver: str
) -> None:
    assert cgroup_driver(text, is_container=is_container) == driver


def test_a_site_that_is_well_is_measured_as_such_and_its_folders_stay_as_they_were(
    site_file: Path, settings: SiteSettings
) -> None:
    (site_file.parent / "heart.csv").write_text("pid\n1\n")
    before = sorted(site_file.parent.rglob("*"))
    found = judge(measure(load_settings(site_file), NOW.timestamp()))
    assert {one.level for one in found} <= {"warn"}
    assert sorted(site_file.parent.rglob("*")) == before


def codes(site_file: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return what the command finds about certificates, by code."""
    assert main(["preflight", "--json", "--config", str(site_file)]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    found = [one for check in checks for one in check["found"]]
    return {one["code"]: one["message"] for one in found if one["check"] == "coordinator"}


def test_a_coordinator_of_a_new_authority_is_told_from_a_kit_of_the_old_one_by_both_names(
    site_file: Path, peer: Peer, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.stop()
    new = make_authority("new authority", now=NOW)
    other = Peer().start(issue_server(new, ["localhost"], now=NOW), new.certificate)
    try:
        text = site_file.read_text().replace(f"localhost:{peer.port}", f"localhost:{other.port}")
        site_file.write_text(text)
        said = codes(site_file, capsys)["coordinator-untrusted"]
        assert "CN=new authority" in said
        assert "CN=test authority" in said
        # the authority alone was replaced: the certificate is still of the old one
        (site_file.parent / "ca.crt").write_bytes(new.certificate)
        said_now = codes(site_file, capsys)
        assert "CN=test authority" in said_now["coordinator-closed"]
        assert "CN=test authority" in said_now["certificate-foreign"]
    finally:
        other.stop()


def test_the_command_prints_a_line_a_check_and_says_ready(
    site_file: Path, settings: SiteSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    (site_file.parent / "heart.csv").write_text("pid\n1\n")
    assert main(["preflight", "--config", str(site_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "ready"
    assert all(any(check.title in line for line in lines) for check in CHECKS)


def test_a_coordinator_that_is_away_is_unreachable(
    site_file: Path, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    peer.stop()
    assert set(codes(site_file, capsys)) == {"coordinator-unreachable"}


def test_a_certificate_that_ended_is_told(
    site_file: Path, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    old = issue_client(pki.authority, "alpha", now=NOW - dt.timedelta(days=400))
    (site_file.parent / "site.crt").write_bytes(old.certificate)
    (site_file.parent / "site.key").unlink()
    write_private(site_file.parent / "site.key", old.key)
    assert "certificate-ended" in codes(site_file, capsys)
