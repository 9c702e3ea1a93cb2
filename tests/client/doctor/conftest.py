"""A site folder beside a coordinator on loopback, and what its doctor finds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from larrey_client.doctor import CHECKS, certificates, data, machine, records, state, ways
from larrey_client.settings import load_settings
from larrey_protocol.checkup import Finding, examine
from tests.client.node.conftest import (
    Pki,
    agent,
    peer,
    pki,
    settings,
    site_file,
    start,
    trainer,
)
from tests.client.node.peer import Peer
from tests.client.training.conftest import table

__all__ = ["Patient", "agent", "peer", "pki", "settings", "site_file", "start", "table", "trainer"]

_ALONE = """
import sys
from pathlib import Path
from larrey_client.doctor import {group}
from larrey_client.settings import load_settings
settings = load_settings(Path(sys.argv[1]))
facts = {group}.look(settings{now})
for check in {group}.CHECKS:
    outcome = check.rule(facts)
    if isinstance(outcome, tuple):
        print(check.code)
"""


@dataclass
class Patient:
    """A site that the test harms."""

    file: Path
    peer: Peer
    pki: Pki
    env: pytest.MonkeyPatch

    @property
    def folder(self) -> Path:
        return self.file.parent

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new, 1))

    def find(self, code: str) -> Finding:
        """Return what the check of that code finds, by its own group's probe."""
        check = next(one for one in CHECKS if one.code == code)
        settings, now = load_settings(self.file), time.time()
        probes = {
            "network": lambda: ways.look(settings),
            "certificates": lambda: certificates.look(settings, now),
            "machine": lambda: machine.look(settings),
            "state": lambda: state.look(settings),
            "records": lambda: records.look(settings),
            "data": lambda: data.look(settings, now),
        }
        return examine([check], probes, 60.0)[0]

    def alone(self, group: str, *before: str, **env: str) -> list[str]:
        """Return the codes that a group finds in a process, and a mount namespace, of its own."""
        command = [
            sys.executable,
            "-c",
            _ALONE.format(group=group, now=", 0.0" if group == "data" else ""),
            str(self.file),
        ]
        if before:
            script = "\n".join([*before, 'exec "$@"'])
            command = ["unshare", "-rm", "sh", "-ec", script, "sh", *command]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **env}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()


@pytest.fixture
def patient(site_file: Path, peer: Peer, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> Patient:
    for name in ("https_proxy", "http_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (site_file.parent / "heart.csv").write_text("pid\n1\n")
    return Patient(site_file, peer, pki, monkeypatch)
