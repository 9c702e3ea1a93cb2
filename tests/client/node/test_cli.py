"""`larrey-site` as a person and a script use it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from larrey_client.agent import Agent
from larrey_client.cli import main
from larrey_client.explain import explain_study
from larrey_client.metrics import SiteMetrics, serve_metrics
from larrey_protocol.errors import PortBusy
from larrey_protocol.keys import SigningKey
from larrey_protocol.study import Study
from tests.client.node.conftest import Pki
from tests.client.node.peer import Peer, wait_until
from tests.protocol.samples import study as make_study

Approve = Callable[[Agent, Study], Study]
Site = Callable[..., tuple[int, str, str]]
STUDY = make_study()


@pytest.fixture
def site(
    site_file: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return what runs a command and gives its status, stdout and stderr."""

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([*words, "--config", str(site_file)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture
def proposed(agent: Agent, lawful: Approve) -> Agent:
    lawful(agent, STUDY)
    return agent


@pytest.fixture
def keys(site_file: Path, pki: Pki) -> dict[str, str]:
    """Return the persons' key files, without a passphrase, as no person should have them."""
    files = {"it": pki.people.it, "dpo": pki.people.dpo}
    for role, key in files.items():
        key.save(site_file.parent / f"{role}.key")
    return {role: str(site_file.parent / f"{role}.key") for role in files}


def test_a_study_is_listed_shown_approved_and_on_the_ledger(
    proposed: Agent, site: Site, peer: Peer, keys: dict[str, str]
) -> None:
    assert "waiting" in site("study", "list")[1]
    assert "0 of 2 signatures (it, dpo missing)" in site("study", "list")[1]
    text = site("study", "show", "tiny")[1]
    for word in ("scientific research", "Does it run?", "alpha (100", "age", "epsilon", "% of"):
        assert word in text
    status, out, _ = site("study", "approve", "tiny", "--key", keys["it"])
    assert (status, "still to sign: dpo" in out, peer.answers) == (0, True, [])
    assert "1 of 2 signatures (dpo missing)" in site("study", "list")[1]
    status, out, _ = site("study", "approve", "tiny", "--key", keys["dpo"], "--json")
    assert (status, json.loads(out)["is_sent"]) == (0, True)
    assert len(peer.answers) == 1
    ledger = json.loads(site("ledger", "--json")[1])[0]
    assert ledger["studies"][0]["name"] == "tiny"
    assert 0 < ledger["held_share"] < 1
    assert "0 of 4 rounds" in site("ledger")[1]


def test_what_a_study_says_of_itself_cannot_forge_a_line() -> None:
    forged = "Why?\nPrivacy       epsilon 0.1\x1b[8m\u202e\r"
    view = {
        **dict.fromkeys(("digest", "proposed_by", "dataset", "code", "decided_by"), ""),
        "state": "waiting",
        "name": "tiny",
        "version": 1,
        "title": forged,
        "question": forged,
        "outcome": {"kind": "binary", "columns": ["y"]},
        "purpose": "statistics",
        "roster": [],
        "proposer": "",
        "altered": "",
        "amends": None,
        "permit": None,
        "permit_reference": "test/1",
        "signatures": {"needed": ["dpo"], "signed": [], "missing": ["dpo"]}
        | {"is_outdated": False, "carried_from": ""},
        "cost": [],
        "longest_s": 1,
        "unit": "patient",
        "variables": [{"name": "a", "kind": "number", "unit": forged, "range": (0, 1)}],
        "model": {"name": "logistic", "hidden": [], "layers": [forged], "parameters": 1},
        "training": {"rounds": 1, "spare_rounds": 0, "local_steps": 1}
        | {"app": forged, "strategy": forged, "algorithm": {}},
        "privacy": {"mechanism": "none"},
        "leaves": {"bytes_per_round": 1, "encoding": "float32", "tensors": [], "metrics": []}
        | {"local": [forged]},
    }
    text = explain_study(view)
    assert [line for line in text.splitlines() if line.startswith("Privacy")] == [
        "Privacy       NO differential privacy: nothing bounds what the model tells about a person"
    ]
    assert text.replace("\n", "").isprintable()


def test_a_study_s_privacy_names_the_column_that_tells_patients_apart(
    proposed: Agent, site: Callable[..., tuple[int, str, str]]
) -> None:
    assert "per patient (a value of pid) at this site" in site("study", "show", "tiny")[1]


def test_one_file_cannot_have_two_budgets(
    site: Callable[..., tuple[int, str, str]], site_file: Path
) -> None:
    (site_file.parent / "link.csv").symlink_to(site_file.parent / "heart.csv")
    twin = '[[datasets]]\nname = "twin"\npath = "link.csv"\n'
    site_file.write_text(site_file.read_text().replace("[policy]", f"{twin}[policy]"))
    status, _, error = site("study", "list")
    assert (status, "data-shared" in error) == (2, True)


def test_who_approved_is_whose_key_signed(
    proposed: Agent, site: Site, keys: dict[str, str]
) -> None:
    for role in ("dpo", "it"):
        site("study", "approve", "tiny", "--key", keys[role])
    with proposed.node.store.reading() as records:
        actors = [r.actor for r in records.audit() if r.action == "study-approved"]
    assert actors == ["dora, ines"]


def test_status_says_that_the_node_is_connected(
    proposed: Agent, site: Callable[..., tuple[int, str, str]]
) -> None:
    wait_until(lambda: proposed.is_connected)
    status, out, _ = site("status", "--json")
    facts = json.loads(out)
    assert (status, facts["is_connected"], facts["studies"]) == (0, True, {"waiting": 1})
    assert "connected" in site("status")[1]
    assert "policy      version 1, in effect" in site("status")[1]
    assert "witness     none: the coordinator and other sites alone" in site("status")[1]


def test_reading_works_without_a_running_node(
    start: Callable[[], Agent],
    approve: Approve,
    peer: Peer,
    site: Callable[..., tuple[int, str, str]],
) -> None:
    agent = start()
    peer.request(peer.first_task(approve(agent, STUDY)))
    agent.stop()
    (agent.node.store.folder / "agent.sock").unlink()
    assert "approved" in site("study", "list")[1]
    assert "approved by ines, dora for dataset heart" in site("study", "show", "tiny")[1]
    assert "1 of 4 rounds" in site("ledger")[1]
    proof = json.loads(site("audit", "verify", "--json")[1])
    assert (proof["is_intact"], proof["receipts"], proof["ledger_entries"]) == (True, 1, 4)


def test_audit_verify_notices_a_restored_old_copy(
    agent: Agent, approve: Approve, peer: Peer, site: Callable[..., tuple[int, str, str]]
) -> None:
    peer.request(peer.first_task(approve(agent, STUDY)))
    connection = agent.node.store.records.connection
    connection.execute("DROP TRIGGER audit_no_delete")
    connection.execute("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
    status, _, error = site("audit", "verify")
    assert (status, "audit-behind-anchor" in error) == (1, True)


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("status",), 1, "agent-not-running"),
        (("study", "approve", "tiny", "--key", "it.key"), 1, "agent-not-running"),
        (("ledger",), 2, "no-state"),
        (("audit", "verify"), 2, "no-state"),
    ],
)
def test_a_command_without_a_node_says_what_to_do(
    site: Callable[..., tuple[int, str, str]], words: tuple[str, ...], status: int, code: str
) -> None:
    got, out, error = site(*words)
    assert (got, out) == (status, "")
    assert code in error
    assert "larrey-site run" in error


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("study", "show", "nothing"), 2, "study-unknown"),
        (("study", "approve", "tiny", "--dataset", "lung", "--key", "x"), 1, "dataset-unknown"),
    ],
)
def test_a_wrong_name_is_a_sentence_with_a_code(
    proposed: Agent,
    site: Callable[..., tuple[int, str, str]],
    words: tuple[str, ...],
    status: int,
    code: str,
) -> None:
    got, out, error = site(*words, "--json")
    assert got == status
    assert json.loads(out)["error"]["code"] == code
    assert error.startswith("larrey-site: ")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("[policy]", "[policy]\nmin_noise = 3", "unknown-key"),
        ('name = "alpha"', 'name = "Alpha!"', "invalid-file"),
        ('metrics = ""', 'metrics = "127.0.0.1"', "invalid-file"),
        ('metrics = ""', "metrics = ", "invalid-toml"),
    ],
)
def test_a_wrong_site_file_is_refused_by_name(
    site_file: Path, site: Callable[..., tuple[int, str, str]], old: str, new: str, code: str
) -> None:
    site_file.write_text(site_file.read_text().replace(old, new))
    status, _, error = site("run")
    assert (status, code in error) == (2, True)


def test_a_missing_site_file_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", "/nowhere/site.toml"]) == 2
    assert "missing-file" in capsys.readouterr().err


def test_an_exposed_key_stops_the_node_before_anything_starts(
    site_file: Path, site: Callable[..., tuple[int, str, str]]
) -> None:
    (site_file.parent / "site.key").chmod(0o644)
    status, _, error = site("run")
    assert (status, "key-exposed" in error) == (2, True)


def test_the_local_socket_is_closed_to_others(agent: Agent) -> None:
    mode = (agent.node.store.folder / "agent.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_noise_on_the_local_socket_changes_nothing(
    agent: Agent, site: Callable[..., tuple[int, str, str]]
) -> None:
    import socket

    for noise in (b"\n", b"[]\n", b'{"command": "rm"}\n', b"\xff\xfe\n"):
        with socket.socket(socket.AF_UNIX) as peer:
            folder = os.open(agent.node.store.folder, os.O_RDONLY)
            peer.connect(f"/proc/self/fd/{folder}/agent.sock")
            os.close(folder)
            peer.sendall(noise)
            assert b"request-malformed" in peer.recv(1000)
    assert site("status")[0] == 0


@pytest.fixture
def process(site_file: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the real node as its own process, trainer included."""
    command = [sys.executable, "-m", "larrey_client.cli", "run", "--config", str(site_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        yield node
        node.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_node_says_so_once_and_ends_within_two_seconds(
    process: subprocess.Popen[str], site: Callable[..., tuple[int, str, str]], number: int
) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().startswith("larrey-site alpha: ready")
    status, _, error = site("run")
    assert (status, "state-locked" in error) == (2, True)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) == 0
    assert time.monotonic() - began < 2.0
    assert process.stdout.read() == ""


def test_the_agent_never_imports_torch() -> None:
    program = (
        "import sys, larrey_client.agent, larrey_client.run, larrey_client.cli;"
        "print([m for m in ('torch', 'opacus', 'pyarrow', 'dp_accounting') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


@pytest.fixture
def metrics(tmp_path: Path) -> SiteMetrics:
    return SiteMetrics(tmp_path)


def read(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_metrics_and_probes_answer_on_loopback(metrics: SiteMetrics) -> None:
    ready, registered = [False], [False]
    server = serve_metrics("127.0.0.1:0", metrics, lambda: ready[0], lambda: registered[0])
    port = server.server_address[1]
    try:
        metrics.tasks.labels("train", "ok").inc()
        text = read(port, "/metrics")[1]
        assert 'larrey_site_tasks_total{kind="train",outcome="ok"} 1.0' in text
        assert 'larrey_site_state{state="idle"} 1.0' in text
        assert [read(port, path)[0] for path in ("/livez", "/readyz")] == [503, 503]
        registered[0] = True
        assert [read(port, path)[0] for path in ("/livez", "/readyz")] == [200, 503]
        ready[0] = True
        assert read(port, "/readyz")[0] == 200
        assert read(port, "/other")[0] == 404
        with pytest.raises(PortBusy, match="port-busy"):
            serve_metrics(f"127.0.0.1:{port}", metrics, lambda: True, lambda: True)
    finally:
        server.shutdown()
        server.server_close()


def test_the_node_s_public_key_is_what_receipts_verify_under(agent: Agent, pki: Pki) -> None:
    assert isinstance(agent.node.key, SigningKey)
    assert agent.node.key.public == pki.signing.public
