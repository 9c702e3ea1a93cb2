"""System units and images: no root, no telemetry, hardened, no torch in the coordinator."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
IMAGES = sorted((ROOT / "deploy" / "docker").glob("*.Containerfile"))
SITE_UNIT = ROOT / "deploy" / "systemd" / "larrey-site.service"
COMMANDS = {
    "larrey-coordinator": "/opt/larrey/bin/larrey serve --config /etc/larrey/coordinator.toml",
    "larrey-site": "/opt/larrey/bin/larrey-site run --config /etc/larrey/site.toml",
}


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request):
    return request.param.stem, _settings(request.param)


@pytest.fixture(params=IMAGES, ids=lambda path: path.stem)
def image(request):
    lines = request.param.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_both_programs_have_a_unit_and_an_image():
    assert {path.stem for path in UNITS} == set(COMMANDS)
    assert {path.stem for path in IMAGES} == {"coordinator", "site"}


def test_a_unit_runs_the_program_as_an_ordinary_user(unit):
    name, settings = unit
    assert settings["ExecStart"] == [COMMANDS[name]]
    assert settings["User"] == ["larrey"]


def test_a_unit_gives_up_every_right_it_can_live_without(unit):
    _, settings = unit
    wanted = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "PrivateDevices": "yes",
        "PrivateTmp": "yes",
        "ProtectHome": "yes",
        "ProtectSystem": "strict",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
    }
    assert {name: settings[name] for name in wanted} == {
        name: [value] for name, value in wanted.items()
    }


def test_a_unit_leaves_no_core(unit):
    assert unit[1]["LimitCORE"] == ["0"]


def test_a_killed_trainer_does_not_end_the_service():
    assert _settings(SITE_UNIT)["OOMPolicy"] == ["continue"]


def test_a_site_unit_lets_the_trainer_close_itself_in():
    settings = _settings(SITE_UNIT)
    assert settings["RestrictNamespaces"] == ["user net"]
    allowed, denied = _calls(settings["SystemCallFilter"])
    needed = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "prctl"}
    needed |= {"unshare", "prlimit64", "socket", "socketpair", "sched_setaffinity", "memfd_create"}
    assert needed - allowed == set()
    assert needed & denied == set()


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_understands_a_unit_and_finds_it_closed(path):
    # The exposure of a unit without any hardening is 96 of 100.
    run = _systemd("security", "--offline=true", "--threshold=20", str(path))
    assert run.returncode == 0, run.stdout[-200:]
    assert run.stderr == ""


def test_a_coordinator_may_renew_its_certificate_and_not_change_its_settings():
    settings = _settings(ROOT / "deploy" / "systemd" / "larrey-coordinator.service")
    assert settings["ReadWritePaths"] == ["-/etc/larrey"]
    assert settings["ReadOnlyPaths"] == ["-/etc/larrey/coordinator.toml"]


def test_a_site_reaches_nobody_until_its_coordinator_is_named():
    settings = _settings(SITE_UNIT)
    assert settings["IPAddressDeny"] == ["any"]
    assert settings["IPAddressAllow"] == ["localhost"]


def test_flower_is_silent_in_units(unit):
    environment = " ".join(unit[1]["Environment"]).split()
    assert {"FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1"} <= set(environment)


def test_flower_is_silent_in_images(image):
    environment = " ".join(line for line in image if line.startswith("ENV ")).split()
    assert {"FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1"} <= set(environment)


def test_the_account_of_an_image_has_a_name(image):
    (line,) = [line for line in image if "useradd" in line]
    assert "groupadd --gid 65532 larrey" in line
    assert "useradd --uid 65532 --gid 65532" in line


def test_an_image_runs_as_an_ordinary_user_from_a_fixed_base(image):
    assert [line for line in image if line.startswith("USER ")] == ["USER 65532:65532"]
    (base,) = [line for line in image if line.startswith("ARG BASE=")]
    name, tag = base.removeprefix("ARG BASE=").split(":")
    assert name == "python"
    assert tag.startswith("3.11.")
    assert "slim" in tag


def test_what_an_image_copies_from_the_repository_exists(image):
    copies = [line.split()[1:-1] for line in image if line.startswith("COPY ")]
    sources = [source for words in copies for source in words if words[0] != "--from=build"]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_coordinator_image_has_no_torch():
    text = (ROOT / "deploy" / "docker" / "coordinator.Containerfile").read_text()
    instructions = [line for line in text.splitlines() if not line.startswith("#")]
    locked = (ROOT / "requirements" / "server.lock").read_text().splitlines()
    assert "torch" not in "\n".join(instructions).lower()
    assert not [line for line in locked if line.startswith(("torch==", "opacus=="))]


def _calls(lines):
    """Return the system calls that the lines allow, and those they deny again."""
    sides = {True: set(), False: set()}
    for line in lines:
        for word in line.removeprefix("~").split():
            sides[not line.startswith("~")] |= _members(word)
    return sides[True], sides[False]


def _members(word):
    if not word.startswith("@"):
        return {word}
    lines = _systemd("syscall-filter", word).stdout.splitlines()[1:]
    members = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return set().union(*(_members(member) for member in members))


def _systemd(*arguments):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def _settings(path):
    settings = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            settings.setdefault(name, []).append(value)
    return settings
