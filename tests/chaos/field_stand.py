"""Three hospitals in which a scenario can spoil machine, network and disk of one, `gamma`.

Rows lie in folders of their own, apart from everything that a node writes; gamma calls its
coordinator over a `Line`, and its probes answer on loopback.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import tomli_w

from larrey_lab.federation.workspace import SitePlan, create_workspace, free_port
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.signed import Certificate
from larrey_protocol.study import Study
from larrey_protocol.tomlfile import read_text
from tests.chaos.proxy import Line, Network
from tests.chaos.stand import APPS, Program, Stand
from tests.system.hospitals import DATASET, Hospitals, make_study, table, until

SITES = ("alpha", "beta", "gamma")
_DISK_MB = 16
_ORDERS = ("hold", "slow", "lost", "bus")


@dataclass(frozen=True)
class Disk:
    """A small file system in memory that a state folder has to itself."""

    folder: Path

    def mount(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = f"size={_DISK_MB}m,mode=0700"
        self._mount("-t", "tmpfs", "-o", options, "larrey")

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def fill(self) -> None:
        """Leave no room."""
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def lock(self) -> None:
        """Let nobody write, as soon as nobody has a file open to write."""
        until(lambda: self._remount("ro"))

    def unlock(self) -> None:
        self._remount("rw")

    def _remount(self, way: str) -> bool:
        try:
            self._mount("-o", f"remount,{way}")
        except subprocess.CalledProcessError:
            return False
        return True

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, self.folder], check=True, capture_output=True)


@dataclass(frozen=True)
class Field:
    """The running stand; a scenario leaves it as it found it."""

    stand: Stand
    hospitals: Hospitals
    line: Line
    probes: int  # port of gamma's
    rows: Path
    disks: tuple[Disk, ...]  # of coordinator and gamma; none where they have none of their own
    _numbers: Iterator[int]

    @property
    def gamma(self) -> Program:
        return self.stand.sites["gamma"]

    def study(self, **changes: Any) -> Study:
        """Return a new study of all three; ``changes`` replace keys of training and rounds."""
        training = {"rounds": 2, "spare_rounds": 2, "learning_rate": 1.0, "app": "field"}
        rounds = {"quorum": 2, "deadline_s": 60.0}
        return make_study(
            f"field-{next(self._numbers)}",
            training=training | {k: v for k, v in changes.items() if k in training},
            rounds=rounds | {k: v for k, v in changes.items() if k not in training},
            sites=[{"name": site, "patients": 25} for site in SITES],
        )

    def order(self, site: str, *orders: str) -> None:
        """Have a site's training do these and nothing else that was ordered before."""
        for name in _ORDERS:
            file = self.rows / site / f"{DATASET}.csv.{name}"
            file.touch() if name in orders else file.unlink(missing_ok=True)

    def outcomes(self, certificate: Certificate, site: str) -> list[str]:
        """Return by round what became of a site: outcome, or the code where it was refused."""
        cells = [cell for cell in certificate.matrix if cell.site == site]
        return [c.code or c.outcome for c in sorted(cells, key=lambda cell: cell.round)]

    def state(self, study: str, site: str) -> str:
        rows = self.hospitals.status(study)["sites"]
        return next((str(row["state"]) for row in rows if row["site"] == site), "")

    def probe(self, path: str) -> int:
        """Return the status of one of gamma's probes, 0 where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.probes}{path}") as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def kill(self, program: Program) -> None:
        """End a program by SIGKILL; its supervisor starts it again."""
        before = len(program.deaths)
        os.kill(program.pid, signal.SIGKILL)
        until(lambda: len(program.deaths) > before)

    def mend(self) -> None:
        """Take back all orders, set clocks and disks right and heal the line."""
        for site in SITES:
            self.order(site)
        for disk in self.disks:
            disk.free()
            disk.unlock()
        for program in self.stand.programs:
            program.set_clock(0.0)
            program.may_fail = False
            program.up()
        self.line.heal()
        until(lambda: self.probe("/readyz") == 200, 60)

    def doctor(self, *before: str) -> tuple[int, dict[str, str]]:
        """Return what `larrey-site doctor` ends with and finds at gamma, by code.

        ``before`` are shell commands in a mount namespace that the command then has to itself.
        """
        config = self.hospitals.config("gamma")
        command = f"{Path(sys.executable).parent}/larrey-site doctor --json --config {config}"
        script = ["sh", "-ec", "\n".join([*before, f"exec {command}"])]
        apart = ["unshare", "-rm"] if before else []
        done = subprocess.run([*apart, *script], capture_output=True, text=True, check=False)
        checks = json.loads(done.stdout)["checks"]
        found = [one for one in checks if one["status"] in {"failed", "warning"}]
        return done.returncode, {
            one["code"]: f"{one['detail']['en']} {one['remedy']['en']}" for one in found
        }


@contextmanager
def open_field(folder: Path, *, has_disks: bool = False) -> Iterator[Field]:
    """Yield the running stand, its folders in ``folder``.

    With ``has_disks`` the states of coordinator and gamma lie on small disks of their own, which
    this process must be allowed to mount, and which nobody else should see.
    """
    rows = folder / "rows"
    app = {
        "name": "field",
        "module": "field_app:app",
        "digest": digest_bytes((APPS / "field_app.py").read_bytes()),
        "unaccounted": True,
    }
    policy = {"allow_without_dp": [DATASET], "apps": [app], "min_units": 20}
    plans = []
    for number, name in enumerate(SITES):
        (rows / name).mkdir(parents=True)
        data = rows / name / f"{DATASET}.csv"
        data.write_text(table(number))
        plans.append(SitePlan(name, data, DATASET, unit="pid", policy=policy))
    workspace = create_workspace(folder / "federation", plans)
    with Network() as network:
        line, probes = network.line(int(workspace.address.rpartition(":")[2])), free_port()
        for name in SITES:
            more = {"path": str(rows / name / f"{DATASET}.csv")}
            address = f"localhost:{line.port}" if name == "gamma" else ""
            _edit(workspace.site(name), more, address, probes)
            (workspace.site(name).parent / f"{DATASET}.csv").unlink()
        disks = []
        for state in (workspace.coordinator, workspace.site("gamma")) if has_disks else ():
            disks.append(Disk(state.parent / "state"))
            disks[-1].mount()
        stand = Stand(workspace)
        try:
            with stand:
                yield Field(stand, Hospitals(stand), line, probes, rows, tuple(disks), count(1))
        finally:
            for disk in disks:
                disk.unmount()


def _edit(file: Path, dataset: dict[str, str], address: str, probes: int) -> None:
    document = tomllib.loads(read_text(file))
    document["datasets"][0] |= dataset
    if address:
        document["coordinator"]["address"] = address
        document["site"]["metrics"] = f"127.0.0.1:{probes}"
    file.write_text(tomli_w.dumps(document))
