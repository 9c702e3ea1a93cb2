"""A node that can reach the coordinator alone works, and does not even try to reach others."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tomli_w

from larrey_client.local import ask
from larrey_client.settings import load_settings
from larrey_lab.federation.paperwork import approve
from larrey_lab.federation.processes import Federation, run_command
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_protocol.study import Study
from tests.system.hospitals import PRIVATE, PRIVATE_TRAINING, make_study, table, until
from tests.system.namespaces import COORDINATOR, Contact, Network, Record, cabled

pytestmark = pytest.mark.system
# Roster and permit, signed in a process of the coordinator's network.
_PAPERS = """
import sys
from pathlib import Path
from larrey_lab.federation.paperwork import grant
from larrey_lab.federation.workspace import Workspace
from larrey_protocol.study import load_study
from larrey_server.operator import Operator
from larrey_server.settings import load_operator
folder, address, study = sys.argv[1:]
workspace = Workspace(Path(folder), address, ("alpha",), ("cohort",))
with Operator(load_operator(workspace.operator)) as operator:
    grant(workspace, operator, load_study(Path(study)))
"""
_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "no_proxy")


@pytest.fixture(scope="module")
def networks() -> Iterator[tuple[Network, Network]]:
    with cabled() as both:
        yield both


def test_the_record_sees_whatever_is_attempted(networks: tuple[Network, Network]) -> None:
    _, node = networks

    def attempt() -> None:
        for family, host in ((socket.AF_INET, "203.0.113.9"), (socket.AF_INET6, "2001:db8:9::9")):
            with socket.socket(family, socket.SOCK_DGRAM) as peer, suppress(OSError):
                peer.sendto(b"?", (host, 53))
            with socket.socket(family, socket.SOCK_STREAM) as peer, suppress(OSError):
                peer.setblocking(False)
                peer.connect((host, 443))
        with socket.socket() as peer, suppress(OSError):
            peer.connect(("127.0.0.1", 9))

    with Record(node) as record:
        node.run(attempt)
        expected = {
            Contact(protocol, host, port)
            for host in ("203.0.113.9", "2001:db8:9::9")
            for protocol, port in (("udp", 53), ("tcp", 443))
        }
        until(lambda: expected | {Contact("tcp", "127.0.0.1", 9)} <= record.contacts(), 5)


def test_a_node_speaks_to_the_coordinator_and_to_nobody_else(
    networks: tuple[Network, Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    outside, inside = networks
    data = tmp_path / "rows.csv"
    data.write_text(table(1))
    workspace = create_workspace(
        tmp_path / "federation", [SitePlan("alpha", data, "cohort", unit="pid")], host=COORDINATOR
    )
    port = int(workspace.address.rpartition(":")[2])
    operator = str(workspace.operator)
    study = make_study(
        "alone",
        training=PRIVATE_TRAINING | {"rounds": 2, "spare_rounds": 0},
        privacy=PRIVATE,
        rounds={"quorum": 1, "deadline_s": 60.0},
        sites=[{"name": "alpha", "patients": 25}],
    )

    written = str(_write(study, tmp_path / "study"))
    papers = [sys.executable, "-c", _PAPERS, str(workspace.folder), workspace.address, written]

    def consortium(*words: str) -> None:
        done = outside.run(lambda: run_command("larrey", "study", *words, "--operator", operator))
        assert done.returncode == 0, done.stderr

    with Federation(workspace) as federation, Record(inside) as record:
        outside.run(federation.start_coordinator)
        inside.run(federation.start_sites)
        outside.run(lambda: subprocess.run(papers, check=True))
        consortium("propose", written)
        approve(workspace, study)
        state = load_settings(workspace.site("alpha")).site.state
        consortium("launch", study.digest)
        consortium("watch", study.digest)
        (known,) = ask(state, "ledger")[0]["studies"]
        assert known["rounds_used"] == 2
        assert ask(state, "status")["is_connected"]
        assert record.contacts() == {Contact("tcp", COORDINATOR, port)}


def _write(study: Study, folder: Path) -> Path:
    """Return the study's file, its contract beside it."""
    folder.mkdir()
    for name, model in (("study", study.file), ("contract", study.contract)):
        value = json.loads(model.model_dump_json(by_alias=True, exclude_unset=True))
        (folder / f"{name}.toml").write_text(tomli_w.dumps(value))
    return folder / "study.toml"
