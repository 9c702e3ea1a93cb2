"""Each fault is found by its real cause, and a site that is well is left in peace."""

from __future__ import annotations

import resource
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from larrey_client.agent import Agent
from larrey_client.anchors import make_anchor
from larrey_client.cli import main
from larrey_client.doctor import CHECKS, certificates, machine, state
from larrey_client.local import Door
from larrey_protocol.certificates import issue_server, make_authority
from larrey_protocol.checkup import Finding, Skip
from larrey_protocol.checkup_probes import file_system
from larrey_protocol.decisions import Anchor
from larrey_protocol.signed import sign
from tests.client.doctor.conftest import Patient
from tests.client.doctor.faults import FAULTS, NOW
from tests.client.node.peer import Peer, wait_until
from tests.client.training.conftest import CONTRACT

BY_CODE = {check.code: check for check in CHECKS}
ELSEWHERE = {  # tested below, each by a test of its own
    *("tls-inspected", "coordinator-untrusted", "coordinator-slow", "clock-off", "clock-not-kept"),
    *("memory-small", "shared-memory-small", "files-few", "driver-too-old", "device-may-vanish"),
    *("isolation-missing", "engine-differs", "state-read-only", "state-not-writable"),
    *("state-nearly-full", "state-few-files", "state-remote", "state-slow", "audit-trail-broken"),
    *("ledger-broken", "witness-away", "witness-knows-more", "node-not-running"),
    *("node-not-registered", "policy-unsigned", "data-writable", "data-misses-contract"),
}


def mounts() -> bool:
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(not mounts(), reason="no mount namespace may be made here")


def is_found(finding: Finding) -> bool:
    return finding.status == finding.check.level


def test_every_check_of_the_table_has_a_test_of_its_fault() -> None:
    assert len(BY_CODE) == len(CHECKS) >= 30
    assert FAULTS.keys() | ELSEWHERE == BY_CODE.keys()
    assert not FAULTS.keys() & ELSEWHERE


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_found_by_its_code_and_only_once_it_is_there(
    patient: Patient, code: str
) -> None:
    if code not in {"device-lost"}:  # the trial of a device takes torch
        assert not is_found(patient.find(code))
    FAULTS[code](patient)
    found = patient.find(code)
    assert is_found(found), found
    assert found.detail.en
    assert found.detail.fr
    assert "secret" not in found.detail.en


def other_peer(patient: Patient, name: str) -> tuple[Peer, bytes]:
    """Put a TLS server of another authority in the coordinator's place."""
    authority = make_authority(name, now=NOW)
    other = Peer().start(issue_server(authority, ["localhost"], now=NOW), authority.certificate)
    patient.edit(f"localhost:{patient.peer.port}", f"localhost:{other.port}")
    return other, authority.certificate


def test_a_proxy_that_signs_anew_is_named_as_tls_inspection_with_its_issuer(
    patient: Patient,
) -> None:
    other, authority = other_peer(patient, "hospital proxy")
    try:
        assert not is_found(patient.find("tls-inspected"))
        (patient.folder / "store.pem").write_bytes(authority)  # as its administrators install it
        patient.env.setenv("SSL_CERT_FILE", str(patient.folder / "store.pem"))
        found = patient.find("tls-inspected")
        assert is_found(found)
        assert "CN=hospital proxy" in found.detail.en
        assert not is_found(patient.find("coordinator-untrusted"))
    finally:
        other.stop()


def test_a_coordinator_of_another_authority_is_told_by_both_names(patient: Patient) -> None:
    assert not is_found(patient.find("coordinator-untrusted"))
    other, _ = other_peer(patient, "new authority")
    try:
        found = patient.find("coordinator-untrusted")
        assert is_found(found)
        assert "CN=new authority" in found.detail.en
        assert "CN=test authority" in found.detail.fr
    finally:
        other.stop()


def relay(target: int, delay_s: float) -> socket.socket:
    """Return a listener that passes one connection's bytes on, each part late."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(1 << 16):
                time.sleep(delay_s)
                sink.sendall(part)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with suppress(OSError):
            near, _ = listener.accept()
            with near, socket.create_connection(("127.0.0.1", target)) as far:
                back = threading.Thread(target=carry, args=(far, near), daemon=True)
                back.start()
                carry(near, far)
                back.join()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_slow_line_is_measured(patient: Patient) -> None:
    assert not is_found(patient.find("coordinator-slow"))
    with relay(patient.peer.port, 0.6) as listener:
        port = listener.getsockname()[1]
        patient.edit(f"localhost:{patient.peer.port}", f"localhost:{port}")
        assert is_found(patient.find("coordinator-slow"))


def test_a_clock_that_is_off_is_what_the_running_node_says(patient: Patient) -> None:
    folder = patient.folder / "state"
    folder.mkdir(mode=0o700)
    for offset, expected in ((2.0, False), (-3600.0, True)):
        door = Door(folder, {"status": lambda *_, value=offset: {"clock_offset_s": value}})
        try:
            assert is_found(patient.find("clock-off")) is expected
        finally:
            door.close()


def says(code: str, facts: object) -> bool:
    """Return whether a rule finds its fault in facts that no test can make on any machine."""
    outcome = BY_CODE[code].rule(facts)
    return outcome is not None and not isinstance(outcome, Skip)


CLOCK = certificates.Facts((), (), True, None, True)
CUDA = machine.Facts(device="cuda:0", device_answers=True, cuda="12.8", driver="550.1")


@pytest.mark.parametrize(
    ("code", "well", "ill"),
    [
        ("clock-not-kept", CLOCK, replace(CLOCK, is_clock_kept=False)),
        ("memory-small", machine.Facts(), machine.Facts(memory_bytes=1 << 29)),
        ("driver-too-old", CUDA, replace(CUDA, driver="470.82")),
        ("device-may-vanish", replace(CUDA, cgroup="cgroupfs"), replace(CUDA, cgroup="systemd")),
        ("state-remote", state.Facts("/s"), state.Facts("/s", kind="nfs4")),
        ("state-slow", state.Facts("/s"), state.Facts("/s", flush_s=0.4)),
    ],
)
def test_what_needs_other_hardware_is_judged_from_given_facts(
    code: str, well: object, ill: object
) -> None:
    assert not says(code, well)
    assert says(code, ill)


def test_the_deepest_mount_above_a_path_says_what_file_system_holds_it() -> None:
    table = (
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "2 1 0:9 / /srv/a\\040b rw shared:1 - nfs4 server:/x rw\n"
    )
    assert file_system(Path("/srv/a b/state"), table) == "nfs4"
    assert file_system(Path("/srv/other"), table) == "ext4"


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
    assert machine.cgroup_driver(text, is_container=is_container) == driver


FULL = """mount -t tmpfs -o size=1m,nr_inodes=9k,mode=700 t {s}
dd if=/dev/zero of={s}/full bs=4k count=999 2>/dev/null || true"""
APP = (
    '[[policy.apps]]\nname = "a"\nmodule = "a:app"\n'
    f'digest = "sha256:{"0" * 64}"\nunaccounted = true\n'
)


@needs_mounts
@pytest.mark.parametrize(
    ("group", "mount", "codes"),
    [
        ("state", "", set()),
        ("state", "mount --bind {s} {s}\nmount -o remount,bind,ro {s}", {"state-read-only"}),
        ("state", "mount -t tmpfs -o size=2g,mode=700 t {s}", set()),
        ("state", "mount -t tmpfs -o size=8m,nr_inodes=9k,mode=700 t {s}", {"state-nearly-full"}),
        ("state", FULL, {"state-nearly-full", "state-not-writable"}),
        ("state", "mount -t tmpfs -o size=2g,nr_inodes=64,mode=700 t {s}", {"state-few-files"}),
        ("machine", "mount -t tmpfs -o size=64m t /dev/shm", {"shared-memory-small"}),
        ("data", "mount --bind {d} {d}\nmount -o remount,bind,ro {d}", set()),
    ],
)
def test_disks_are_judged_as_they_are_mounted(
    patient: Patient, group: str, mount: str, codes: set[str]
) -> None:
    folder = patient.folder / "state"
    folder.mkdir(mode=0o700)
    if group == "machine":
        patient.file.write_text(patient.file.read_text() + APP)
    before = mount.format(s=folder, d=patient.folder / "heart.csv")
    found = set(patient.alone(group, before or "true"))
    of_mounts = {"shared-memory-small", "data-writable"}
    assert {one for one in found if one in of_mounts or one.startswith("state")} == codes


def test_rows_that_the_node_may_write_are_a_warning(patient: Patient) -> None:
    assert is_found(patient.find("data-writable"))


def test_few_open_files_are_a_warning(patient: Patient) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert not is_found(patient.find("files-few"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        assert is_found(patient.find("files-few"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_another_engine_than_the_release_s_is_found(patient: Patient) -> None:
    assert "engine-differs" not in patient.alone("machine")
    info = patient.folder / "packages" / "flwr-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.2.3\n")
    assert "engine-differs" in patient.alone("machine", PYTHONPATH=str(info.parent))


def test_a_kernel_without_barriers_is_found(patient: Patient) -> None:
    script = Path(__file__).parents[1] / "isolation" / "apps" / "poor_kernel.py"
    command = [sys.executable, str(script), "doctor", "--config", str(patient.file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "isolation-missing" in done.stdout, done.stderr
    assert "landlock" in done.stdout


def ran(agent: Agent, patient: Patient) -> sqlite3.Connection:
    """Stop nothing; return a writing connection to the state of a node that ran."""
    with agent.node.store.transaction():
        agent.node.store.audit("test", "ines")
    path = next((patient.folder / "state").glob("*.db"))
    return sqlite3.connect(agent.node.store.folder / path.name, isolation_level=None)


def test_a_record_taken_out_of_the_trail_is_found(patient: Patient, agent: Agent) -> None:
    connection = ran(agent, patient)
    assert patient.find("audit-trail-broken").status == "ok"
    connection.execute("DROP TRIGGER audit_no_delete")
    connection.execute("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
    connection.close()
    assert is_found(patient.find("audit-trail-broken"))


def test_a_witness_that_is_away_or_knows_more_is_told_apart(patient: Patient, agent: Agent) -> None:
    patient.edit("[consortium]", '[witness]\nfile = "share/anchors"\n[consortium]')
    assert is_found(patient.find("witness-away"))
    (patient.folder / "share").mkdir()
    file = patient.folder / "share" / "anchors"
    now = NOW.timestamp()
    own = make_anchor(agent.node.store, "alpha", patient.pki.signing, now)
    file.write_bytes(own.to_bytes() + b"\n")
    assert patient.find("witness-away").status == "ok"
    assert patient.find("witness-knows-more").status == "ok"
    later = Anchor(site="alpha", ledger_head="0:", audit_head=f"999:sha256:{'a' * 64}", at=now)
    file.write_bytes(sign(later, patient.pki.signing).to_bytes() + b"\n")
    assert is_found(patient.find("witness-knows-more"))


def test_a_changed_entry_of_the_ledger_is_found(patient: Patient, agent: Agent) -> None:
    patient.pki.people.register(agent)
    connection = ran(agent, patient)
    assert patient.find("ledger-broken").status == "ok"
    connection.execute("DROP TRIGGER privacy_ledger_no_update")
    connection.execute("UPDATE privacy_ledger SET hash = replace(hash, substr(hash, -4), '0000')")
    connection.close()
    assert is_found(patient.find("ledger-broken"))


def test_a_node_that_runs_and_is_known_is_told_from_one_that_is_not(
    patient: Patient, start: Callable[[], Agent]
) -> None:
    assert is_found(patient.find("node-not-running"))
    start()
    assert patient.find("node-not-running").status == "ok"
    wait_until(lambda: patient.find("node-not-registered").status == "ok")
    patient.peer.stop()
    wait_until(lambda: is_found(patient.find("node-not-registered")))


def test_a_policy_that_nobody_signed_is_what_the_running_node_says(
    patient: Patient, agent: Agent
) -> None:
    assert patient.find("policy-unsigned").status == "ok"
    told = {"policy": {"is_in_effect": False}}
    door = Door(patient.folder / "state", {"status": lambda *_: told})
    try:
        assert is_found(patient.find("policy-unsigned"))
    finally:
        door.close()


def test_rows_that_missed_a_contract_are_told_by_rule(patient: Patient, table: Path) -> None:
    assert patient.find("data-misses-contract").status == "skipped"
    contract = patient.folder / "contract.toml"
    contract.write_text(tomli_w.dumps(CONTRACT), encoding="utf-8")
    patient.edit("heart.csv", table.name)
    check = ["data", "check", str(contract), "--config", str(patient.file)]
    assert main(check) == 0
    assert patient.find("data-misses-contract").status == "ok"
    table.write_text(table.read_text() + "p77,777,none,maybe,x\n", encoding="utf-8")
    assert main(check) == 1
    found = patient.find("data-misses-contract")
    assert is_found(found)
    assert "value-out-of-range" in found.detail.en
