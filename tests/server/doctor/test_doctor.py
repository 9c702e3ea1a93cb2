"""`larrey doctor`: each fault of a coordinator is found by its real cause."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from larrey_protocol.audit import AuditRecord
from larrey_protocol.certificates import issue_client, issue_server, make_authority
from larrey_protocol.checkup import Finding
from larrey_protocol.keys import SigningKey, write_private
from larrey_server.cli import main
from larrey_server.doctor import CHECKS, look, look_at_start
from larrey_server.doctor.probe import Machine, State
from larrey_server.journal import Journal
from larrey_server.seal import Seal
from larrey_server.serve import Hub
from larrey_server.settings import load_coordinator
from larrey_server.setup import create

NOW = dt.datetime.now(dt.UTC)
BY_CODE = {check.code: check for check in CHECKS}
Home = Path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return the coordinator's folder of a new consortium; its port is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    made = create(tmp_path / "c", f"localhost:{port}", [], now=NOW, passphrase=None)
    text = made.coordinator.read_text().replace('"127.0.0.1:9464"', '""')
    made.coordinator.write_text(text)
    return made.coordinator.parent


def find(home: Home, code: str) -> Finding:
    found = look(load_coordinator(home / "coordinator.toml"), time.time())
    return next(one for one in found if one.check.code == code)


def is_found(home: Home, code: str) -> bool:
    return find(home, code).status == BY_CODE[code].level


def put(path: Path, data: bytes) -> None:
    path.unlink()
    write_private(path, data)


def serve_certificate(home: Home, days_ago: float) -> None:
    at = NOW - dt.timedelta(days=days_ago)
    authority = make_authority("larrey test", now=at)
    made = issue_server(authority, ["localhost"], now=at)
    (home / "server.crt").write_bytes(made.certificate)
    put(home / "server.key", made.key)


def another_key(home: Home) -> None:
    other = issue_server(make_authority("other", now=NOW), ["localhost"], now=NOW)
    put(home / "server.key", other.key)


def old_authority(home: Home) -> None:
    old = make_authority("old", now=NOW - dt.timedelta(days=3550))
    (home / "ca.crt").write_bytes(old.certificate)


def old_operator(home: Home) -> None:
    at = NOW - dt.timedelta(days=400)
    old = issue_client(make_authority("old", now=at), "operator", now=at)
    (home / "operator.crt").write_bytes(old.certificate)


def on_loopback(home: Home) -> None:
    file = home / "coordinator.toml"
    file.write_text(file.read_text().replace("0.0.0.0", "127.0.0.1"))


def kept(home: Home) -> Journal:
    """Return the journal of a coordinator that ran, with a sealed record."""
    journal = Journal.open(home / "state" / "coordinator.db")
    key = SigningKey.load(home / "signing.ed25519")
    journal.on_audit = Seal(home / "state", key, time.time).write
    for number in range(3):
        journal.note(AuditRecord(0, 6.0 + number, "coordinator", "started", ""))
    return journal


def open_database(home: Home) -> None:
    kept(home).close()
    (home / "state" / "coordinator.db").chmod(0o644)


def cut_journal(home: Home) -> None:
    kept(home).close()
    with sqlite3.connect(home / "state" / "coordinator.db", isolation_level=None) as connection:
        connection.execute("DROP TRIGGER audit_no_delete")
        connection.execute("DELETE FROM audit WHERE seq = 2")
    connection.close()


def torn_blob(home: Home) -> None:
    (home / "state" / "spool").mkdir(parents=True)
    (home / "state" / "spool" / ("0" * 64)).write_bytes(b"something else")


FAULTS: dict[str, Callable[[Home], object]] = {
    "server-certificate-ended": lambda home: serve_certificate(home, 400),
    "server-certificate-ends-soon": lambda home: serve_certificate(home, 360),
    "server-certificate-foreign": lambda home: serve_certificate(home, 1),
    "server-key-mismatch": another_key,
    "authority-ends-soon": old_authority,
    "server-key-open": lambda home: (home / "server.key").chmod(0o644),
    "server-signing-key-damaged": lambda home: put(home / "signing.ed25519", b"no key"),
    "operator-certificate-ended": old_operator,
    "listens-on-loopback": on_loopback,
    "coordinator-state-open": open_database,
    "journal-broken": cut_journal,
    "spool-damaged": torn_blob,
}
ELSEWHERE = {
    *("port-silent", "port-of-another", "journal-not-held", "coordinator-engine-differs"),
    *("coordinator-state-read-only", "coordinator-state-not-writable"),
    *("coordinator-state-nearly-full", "coordinator-state-remote", "coordinator-state-slow"),
    "coordinator-clock-not-kept",
}


def test_every_check_of_the_table_has_a_test_of_its_fault() -> None:
    assert len(BY_CODE) == len(CHECKS) >= 12
    assert FAULTS.keys() | ELSEWHERE == BY_CODE.keys()
    assert not FAULTS.keys() & ELSEWHERE


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_found_by_its_code_and_only_once_it_is_there(home: Home, code: str) -> None:
    assert not is_found(home, code) or code == "listens-on-loopback"
    FAULTS[code](home)
    assert is_found(home, code)


def test_an_address_that_other_machines_reach_is_no_warning(home: Home) -> None:
    file = home / "coordinator.toml"
    file.write_text(file.read_text().replace("127.0.0.1:", "0.0.0.0:"))
    assert find(home, "listens-on-loopback").status == "ok"


def test_a_journal_that_is_whole_is_told_so(home: Home) -> None:
    assert find(home, "journal-broken").status == "skipped"
    kept(home).close()
    assert find(home, "journal-broken").status == "ok"


def test_a_coordinator_that_runs_holds_port_and_journal(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["doctor", "--config", str(home / "coordinator.toml")]
    assert main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAILED   port-silent"
    assert is_found(home, "journal-not-held")
    hub = Hub(load_coordinator(home / "coordinator.toml"))
    try:
        report = home / "report.txt"
        status = main([*command, "--json", "--lang", "fr", "--report", str(report)])
        told = json.loads(capsys.readouterr().out)
        failed = [one["code"] for one in told["checks"] if one["status"] == "failed"]
        assert (status, failed) == (0, [])
        assert find(home, "journal-not-held").status == "ok"
        assert find(home, "port-of-another").status == "ok"
        assert "échecs : 0" in report.read_text()
        assert stat.S_IMODE(report.stat().st_mode) == 0o600
    finally:
        hub.stop()


@pytest.fixture
def stranger(home: Home) -> Iterator[None]:
    """Answer TLS at the coordinator's port with a certificate of another authority."""
    address = load_coordinator(home / "coordinator.toml").listen.address
    made = issue_server(make_authority("other", now=NOW), ["localhost"], now=NOW)
    (home / "x.crt").write_bytes(made.certificate)
    write_private(home / "x.key", made.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(home / "x.crt", home / "x.key")
    listener = socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])))

    def serve() -> None:
        with suppress(OSError):
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    listener.close()
    thread.join()


@pytest.mark.usefixtures("stranger")
def test_another_program_at_the_port_is_told(home: Home) -> None:
    assert is_found(home, "port-of-another")


ALONE = """
import sys
from pathlib import Path
from larrey_server.doctor import CHECKS, probe
facts = {"state": probe.state(Path(sys.argv[1])), "machine": probe.machine()}
for check in CHECKS:
    if check.group in facts and isinstance(check.rule(facts[check.group]), tuple):
        print(check.code.removeprefix("coordinator-"))
"""
FULL = """mount -t tmpfs -o size=1m,mode=700 t {s}
dd if=/dev/zero of={s}/full bs=4k count=999 2>/dev/null || true"""


def mounts() -> bool:
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    return done.returncode == 0


def alone(folder: Path, before: str, **env: str) -> set[str]:
    command = [sys.executable, "-c", ALONE, str(folder)]
    if before:
        command = ["unshare", "-rm", "sh", "-ec", f'{before}\nexec "$@"', "sh", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.skipif(not mounts(), reason="no mount namespace may be made here")
@pytest.mark.parametrize(
    ("mount", "codes"),
    [
        ("mount --bind {s} {s}\nmount -o remount,bind,ro {s}", {"state-read-only"}),
        ("mount -t tmpfs -o size=9g,mode=700 t {s}", set()),
        ("mount -t tmpfs -o size=8m,mode=700 t {s}", {"state-nearly-full"}),
        (FULL, {"state-nearly-full", "state-not-writable"}),
    ],
)
def test_disks_are_judged_as_they_are_mounted(tmp_path: Path, mount: str, codes: set[str]) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    found = alone(folder, mount.format(s=folder))
    written = {"state-read-only", "state-not-writable", "state-nearly-full"}
    if "tmpfs" not in mount:
        written -= {"state-nearly-full"}  # as this machine's disk is
    assert found & written == codes


def test_another_engine_than_the_release_s_is_found(tmp_path: Path) -> None:
    assert "engine-differs" not in alone(tmp_path, "")
    info = tmp_path / "packages" / "flwr-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flwr\nVersion: 1.2.3\n")
    assert "engine-differs" in alone(tmp_path, "", PYTHONPATH=str(info.parent))


@pytest.mark.parametrize(
    ("code", "well", "ill"),
    [
        ("coordinator-state-remote", State("/s"), State("/s", kind="cifs")),
        ("coordinator-state-slow", State("/s"), State("/s", flush_s=0.4)),
        (
            "coordinator-clock-not-kept",
            Machine(True, "", ""),
            replace(Machine(True, "", ""), is_clock_kept=False),
        ),
    ],
)
def test_what_needs_other_hardware_is_judged_from_given_facts(
    code: str, well: object, ill: object
) -> None:
    assert BY_CODE[code].rule(well) is None
    assert BY_CODE[code].rule(ill) is not None


def test_every_text_has_both_languages() -> None:
    for check in CHECKS:
        assert check.title.en != check.title.fr
        assert check.remedy.en != check.remedy.fr
        assert check.fault


def test_what_a_coordinator_looks_at_when_it_starts_asks_for_none_that_runs(home: Home) -> None:
    found = look_at_start(load_coordinator(home / "coordinator.toml"), time.time())
    assert [one.check.code for one in found if one.status == "failed"] == []
    assert not {"port-silent", "journal-not-held"} & {one.check.code for one in found}
    serve_certificate(home, 400)
    found = look_at_start(load_coordinator(home / "coordinator.toml"), time.time())
    assert "server-certificate-ended" in {one.check.code for one in found if one.status == "failed"}
