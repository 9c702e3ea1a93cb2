"""Joining in a pod: once for each invitation, keys in a claim, by the program's own command."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from larrey_client.cli import build_parser

HOME = "/var/lib/larrey-node"
# Stands where the program would: counts its calls, fails while a file says so.
PROGRAM = '#!/bin/sh\necho "$*" >> calls\ntest ! -e refuse\n'


@pytest.fixture
def joining(site):
    (container,) = site("join").pod["initContainers"]
    return container


@pytest.fixture
def start(joining, tmp_path):
    """Start the container's script here; return its exit status."""
    (tmp_path / "larrey-site").write_text(PROGRAM)
    (tmp_path / "larrey-site").chmod(0o755)
    (tmp_path / "site.invite").write_text("first")
    *shell, script, _, fingerprint = joining["command"]
    command = [*shell, script.replace(HOME, str(tmp_path))]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    def run():
        words = [*command, str(tmp_path / "site.invite"), fingerprint]
        return subprocess.run(words, env=environment, capture_output=True, check=False).returncode

    return run


def test_it_joins_with_a_command_that_the_program_knows(joining):
    *_, script, invitation, fingerprint = joining["command"]
    (line,) = [line for line in script.splitlines() if line.startswith("larrey-site ")]
    words = line.replace('"$0"', invitation).replace('"$1"', fingerprint).split()
    options = build_parser().parse_args(words[1:])
    assert options.dir == Path(HOME)
    assert options.fingerprint == "ABCD-EFGH-IJKL-MNOP-QRST"
    mounts = {mount["mountPath"] for mount in joining["volumeMounts"]}
    assert {HOME, str(options.invitation.parent)} <= mounts


def test_a_pod_that_starts_again_does_not_join_again(start, tmp_path):
    assert [start(), start()] == [0, 0]
    assert len(_calls(tmp_path)) == 1


def test_a_new_invitation_joins_again(start, tmp_path):
    start()
    (tmp_path / "site.invite").write_text("second")
    assert start() == 0
    assert len(_calls(tmp_path)) == 2


def test_a_joining_that_failed_stops_the_pod_and_is_tried_again(start, tmp_path):
    (tmp_path / "refuse").touch()
    assert start() != 0
    (tmp_path / "refuse").unlink()
    assert start() == 0
    assert len(_calls(tmp_path)) == 2


def test_no_part_of_the_invitation_is_kept(start, tmp_path):
    start()
    kept = (tmp_path / "joined").read_text().split()[0]
    assert kept == hashlib.sha256(b"first").hexdigest()


def test_a_node_that_joined_starts_without_an_invitation(site):
    assert "initContainers" not in site("hospital").pod


def test_the_claim_of_the_keys_is_made_once_and_outlives_the_release(site):
    claims = {
        item["metadata"]["name"]: item for item in site("join").of_kind("PersistentVolumeClaim")
    }
    assert claims.keys() == {"r-identity", "r-state"}
    assert claims["r-identity"]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for name in ("minimal", "hospital"):
        names = {c["metadata"]["name"] for c in site(name).of_kind("PersistentVolumeClaim")}
        assert names == {"r-state"}


def test_further_memberships_join_after_the_first_each_with_its_own_invitation(site):
    rendered = site("memberships")
    containers = rendered.pod["initContainers"]
    assert [one["name"] for one in containers] == ["join", "join-north"]  # east joined before
    volumes = {item["name"]: item.get("secret", {}) for item in rendered.pod["volumes"]}
    found = []
    for one in containers:
        *_, script, invitation, fingerprint = one["command"]
        (line,) = [line for line in script.splitlines() if line.startswith("larrey-site ")]
        words = line.replace('"$0"', invitation).replace('"$1"', fingerprint).split()
        options = build_parser().parse_args(words[1:])
        (mount,) = [m for m in one["volumeMounts"] if m["mountPath"].endswith("/join")]
        secret = volumes[mount["name"]]["secretName"]
        found.append((options.membership, options.fingerprint, secret, script.split()[-1]))
    assert found == [
        ("", "BCDE-FGHI-JKLM-NOPQ-RSTU", "site-invite", "joined"),
        ("north", "ABCD-EFGH-IJKL-MNOP-QRST", "north-invite", "joined-north"),
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("memberships", "logs statefulset/r -c join-north"),
        ("minimal", "NOT RENEWED"),
        ("join", "logs statefulset/r -c join"),
        ("hospital", "Its keys lie in the claim site-keys"),
    ],
)
def test_the_notes_say_how_keys_are_renewed_and_what_a_pod_does_not_enforce(helm, site, name, said):
    text = _notes(helm, site(name).values)
    assert said in text
    assert "Expect `namespace`" in text
    assert ("No witness is set" in text) is (name != "hospital")


@pytest.mark.parametrize(
    ("name", "said"), [("minimal", "nobody can be invited"), ("members", "larrey invite")]
)
def test_the_notes_of_a_coordinator_say_whether_it_can_invite(helm, coordinator, name, said):
    assert said in _notes(helm, coordinator(name).values)


def _notes(helm, values):
    return helm(
        "install", "r", str(values.parents[1]), "-f", str(values), "--dry-run=client"
    ).stdout


def _calls(folder):
    return (folder / "calls").read_text().splitlines()
