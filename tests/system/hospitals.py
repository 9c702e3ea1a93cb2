"""Four hospitals and a coordinator as real processes, and what a test does to them.

Commands that a person would give go through the node's own local door, as `larrey-site` does; only
tests of the command line pay for starting it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from larrey_client.ledger_pages import ledger_view
from larrey_client.local import ask
from larrey_client.settings import load_settings
from larrey_client.store import open_readonly
from larrey_client.views import verify_view
from larrey_lab.federation import paperwork
from larrey_lab.federation.processes import Federation
from larrey_lab.federation.workspace import SitePlan, create_workspace
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.contract import Contract
from larrey_protocol.errors import LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.models import model_layout
from larrey_protocol.signed import Certificate, open_signed
from larrey_protocol.study import Study, StudyFile
from larrey_server.operator import Operator
from larrey_server.settings import load_operator

SITES = ("alpha", "beta", "gamma", "delta")
DATASET = "cohort"
APPS = Path(__file__).parent / "apps"
PATIENTS = 30
Facts = dict[str, Any]

HELD = {"rounds": 3, "spare_rounds": 2, "learning_rate": 1.0, "app": "held"}
_UNACCOUNTED = {"mechanism": "none", "max_update_norm": 1e3}
PRIVATE_TRAINING = {"rounds": 3, "spare_rounds": 1, "learning_rate": 1.0}
PRIVATE = {
    "mechanism": "dp-sgd",
    "epsilon": 1.0,
    "delta": 1e-5,
    "noise_multiplier": 10.0,
    "clip": 1.0,
    "sampling_rate": 1.0,
}


@dataclass(frozen=True)
class Hospitals:
    """A running federation; a test leaves it as it found it: everything up, nothing held."""

    federation: Federation

    @property
    def folder(self) -> Path:
        return self.federation.workspace.folder

    def config(self, site: str) -> Path:
        return self.federation.workspace.site(site)

    def officer(self, site: str) -> str:
        """Return the key file of a site's data protection officer."""
        return str(self.federation.workspace.site_key(site, "dpo"))

    def data(self, site: str) -> Path:
        return self.config(site).parent / f"{DATASET}.csv"

    @contextmanager
    def operator(self) -> Iterator[Operator]:
        with Operator(load_operator(self.federation.workspace.operator)) as operator:
            yield operator

    def propose(self, study: Study, *, approve: bool = True) -> str:
        """Return the digest of a study that has arrived at, and was approved by, every site.

        Without ``approve`` it waits for the approvals alone.
        """
        with self.operator() as operator:
            digest = paperwork.propose(self.federation.workspace, operator, study)
        act = paperwork.approve if approve else paperwork.prepare
        act(self.federation.workspace, study)
        return digest

    def launch(self, study: Study) -> str:
        digest = self.propose(study)
        with self.operator() as operator:
            operator.launch(digest)
        return digest

    def status(self, digest: str) -> Facts:
        """Return how far a study is; where nobody answers, an empty state."""
        try:
            with self.operator() as operator:
                return next(f for f in operator.list() if f["digest"] == digest)
        except LarreyError:
            return {"state": "", "round": 0, "sites": []}

    def await_round(self, digest: str, number: int, **states: str) -> None:
        """Wait until a round is open and the named sites are in these states."""

        facts: Facts = {}

        def is_there() -> bool:
            facts.update(self.status(digest))
            found = {row["site"]: row["state"] for row in facts["sites"]}
            return facts["round"] == number and states.items() <= found.items()

        try:
            until(is_there)
        except AssertionError:
            raise AssertionError(f"waited for round {number} with {states}: {facts}") from None

    def finish(self, digest: str) -> Certificate:
        """Return the certificate of a study once it ended, its signature checked."""
        until(lambda: self.status(digest)["state"] == "ended", 60)
        key = SigningKey.load(self.folder / "coordinator" / "signing.ed25519").public
        with self.operator() as operator:
            return open_signed(operator.certificate(digest), Certificate, key)

    def model(self, study: Study, number: int, folder: Path) -> NDArray[np.float32]:
        """Return a flat model as the operator's export has it."""
        path = folder / f"{number}.safetensors"
        with self.operator() as operator:
            operator.model(study.digest, number, path)
        return np.frombuffer(path.read_bytes(), "<f4", offset=len(model_layout(study).header))

    def ask(self, site: str, command: str, **arguments: str | None) -> Any:
        """Return what a running node answers at its local door."""
        return ask(load_settings(self.config(site)).site.state, command, **arguments)

    def rounds_used(self, site: str, digest: str) -> int:
        """Return the rounds that a site's ledger has reserved for a study, from its disk."""
        settings = load_settings(self.config(site))
        connection = open_readonly(settings.site.state)
        try:
            (view,) = ledger_view(connection, settings)
            used = [s["rounds_used"] for s in view["studies"] if s["study"] == digest]
            return int(used[0]) if used else 0
        finally:
            connection.close()

    def proofs(self, site: str) -> Facts:
        """Return ledger and audit heads after verifying every chain and receipt on disk."""
        settings = load_settings(self.config(site))
        connection = open_readonly(settings.site.state)
        try:
            return verify_view(connection, SigningKey.load(settings.identity.signing_key).public)
        finally:
            connection.close()

    def audit(self, site: str) -> list[Facts]:
        """Return a site's audit records, oldest first."""
        connection = open_readonly(load_settings(self.config(site)).site.state)
        try:
            rows = connection.execute("SELECT record FROM audit ORDER BY seq").fetchall()
        finally:
            connection.close()
        return [json.loads(record) for (record,) in rows]

    def hold(self, site: str) -> None:
        """Make the held app at a site train until it is released."""
        self._hold(site).touch()

    def release(self, site: str) -> None:
        self._hold(site).unlink(missing_ok=True)

    def mend(self) -> None:
        """Release all and start whatever a test left dead, so that the next one finds all up."""
        for site in SITES:
            self.release(site)
        if "coordinator" not in self.federation.processes:
            self.federation.start_coordinator()
        if dead := [site for site in SITES if site not in self.federation.processes]:
            self.federation.start_sites(dead)

    def _hold(self, site: str) -> Path:
        return Path(f"{self.data(site)}.hold")


def build(folder: Path) -> Hospitals:
    """Return hospitals whose folders are written; nothing runs yet."""
    module = APPS / "held_app.py"
    app = {
        "name": "held",
        "module": "held_app:app",
        "digest": digest_bytes(module.read_bytes()),
        "unaccounted": True,
        "metrics": True,
    }
    policy: Facts = {"allow_without_dp": [DATASET], "apps": [app], "min_units": 20}
    plans = []
    for number, name in enumerate(SITES):
        data = folder / f"{name}.csv"
        data.write_text(table(number))
        plans.append(SitePlan(name, data, DATASET, unit="pid", policy=policy))
    return Hospitals(Federation(create_workspace(folder / "federation", plans)))


def table(seed: int, patients: int = PATIENTS) -> str:
    """Return a cohort as CSV."""
    draw = np.random.default_rng(seed)
    rows = [
        f"{seed}-{i},{i % 2},{x:.3f},{y:.3f}\n"
        for i, (x, y) in enumerate(draw.random((patients, 2)))
    ]
    return "".join(["pid,y,x0,x1\n", *rows])


def make_study(name: str, **changes: Facts) -> Study:
    """Return a study of the held app; ``changes`` replace whole sections."""
    column = {"kind": "number", "range": [0, 1], "missing_max": 0.0}
    contract = {
        "contract": {"name": "cohort", "version": "1.0.0"},
        "unit": {"column": "pid", "min_count": 20},
        "label": {"column": "y", "positive": ["1"], "negative": ["0"]},
        "columns": [{**column, "name": name} for name in ("x0", "x1")],
    }
    head = {"name": name, "title": "A test", "question": "Does it hold?", "purpose": "statistics"}
    head["permit"] = "test/1"
    file: Facts = {
        "study": head,
        "model": {"name": "logistic"},
        "training": HELD,
        "privacy": _UNACCOUNTED,
        "rounds": {"quorum": 2, "deadline_s": 120.0},
        "sites": [{"name": site, "patients": 25} for site in SITES],
    }
    return Study(
        file=StudyFile.model_validate(file | changes), contract=Contract.model_validate(contract)
    )


def until(holds: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Return as soon as something holds."""
    end, pause = time.monotonic() + limit_s, threading.Event()
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("it did not become true in time")
        pause.wait(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children and theirs."""
    found: list[int] = []
    todo = [pid]
    while todo:
        try:
            tasks = list(Path(f"/proc/{todo.pop()}/task").iterdir())
            children = [int(c) for t in tasks for c in (t / "children").read_text().split()]
        except OSError:  # it ended while we looked
            continue
        found += children
        todo += children
    return found


def app_path() -> dict[str, str]:
    """Return the environment under which nodes find the test's app, as an administrator sets it."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))}
