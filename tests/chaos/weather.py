"""A federation of real programs whose every connection is a line that can be made bad.

`Weather.run` plays one schedule on one study and returns what was seen; it judges nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from larrey_lab.federation.workspace import SitePlan, Workspace, create_workspace
from larrey_protocol.canonical import digest_bytes
from larrey_protocol.errors import LarreyError
from larrey_protocol.study import Study
from larrey_server.operator import Operator
from larrey_server.round_opening import QUORUM_STOPS
from tests.chaos.proxy import Line, Network
from tests.chaos.schedules import Strike
from tests.chaos.stand import APPS, Stand
from tests.system.hospitals import (
    DATASET,
    Facts,
    Hospitals,
    descendants,
    make_study,
    table,
    until,
)

DEADLINE_S = 2.0  # the unit: it stands for ten minutes
ROUNDS = 5
SPARES = 1
QUORUM = 2
HIDDEN = (256, 256)
_DEAD_S = 45.0  # after which either end of a dead connection knows: keepalive, long poll
_RETRIES = 5
_PATIENCE = 8.0  # so that nobody is late because this machine has other things to do
_WARM_S = 120.0  # for the imports of the trainers: they take no network
_LOOK_S = 0.02


@dataclass
class Ran:
    """One study and the schedule that was played on it; all times in seconds since 1970.

    Attributes:
        strikes: those that happened before the study ended.
        pauses: when it paused itself, with the code.
        ended: in time, or it hung.
    """

    study: Study
    began: float
    strikes: list[Strike] = field(default_factory=list)
    events: list[Facts] = field(default_factory=list)
    pauses: list[tuple[float, str]] = field(default_factory=list)
    until: float = 0.0
    ended: bool = False

    @property
    def seconds(self) -> float:
        return self.until - self.began


@dataclass(frozen=True)
class Weather:
    """A running federation and its lines."""

    stand: Stand
    lines: Mapping[str, Line]

    @property
    def workspace(self) -> Workspace:
        return self.stand.workspace

    @property
    def hospitals(self) -> Hospitals:
        return Hospitals(self.stand)

    def heal(self) -> None:
        for line in self.lines.values():
            line.heal()

    def await_all(self) -> None:
        """Wait until every site polls, as a study wants them at its launch."""
        for site in self.lines:
            deadline = time.monotonic() + _DEAD_S
            while not self.hospitals.ask(site, "status")["is_connected"]:
                assert time.monotonic() < deadline, f"{site} did not come back"
                time.sleep(_LOOK_S)

    def run(self, study: Study, strikes: Sequence[Strike]) -> Ran:
        """Launch an approved study, play the strikes, and follow it to its end.

        Where it pauses itself, a person orders a retry once the schedule is over.
        """
        with self.hospitals.operator() as operator:
            ran = Ran(study, time.time())
            watcher = threading.Thread(target=self._watch, args=(ran,), daemon=True)
            watcher.start()
            operator.launch(study.digest)
            ran.began = time.time()
            try:
                self._play(ran, strikes)
            finally:
                self.heal()
            for _ in range(_RETRIES):
                if not self._settle(ran):
                    break
                operator.command(study.digest, "retry")
            watcher.join(1)
        ran.until = ran.events[-1]["at"] if ran.ended else time.time()
        return ran

    def _play(self, ran: Ran, strikes: Sequence[Strike]) -> None:
        """Strike and heal in turn, until the schedule or the study is over."""
        turns = [(one.at, 1, one) for one in strikes] + [(one.until, 0, one) for one in strikes]
        for at, begins, strike in sorted(turns, key=lambda turn: turn[:2]):
            while (left := ran.began + at - time.time()) > 0 and not ran.ended:
                time.sleep(min(left, _LOOK_S))
            if ran.ended:
                break
            if begins:
                self.lines[strike.site].strike(strike.fault)
                ran.strikes.append(Strike(time.time(), strike.site, strike.fault, float("inf")))
            else:
                self.lines[strike.site].heal()
                self._close(ran, strike.site)
        for site in self.lines:
            self._close(ran, site)

    def _close(self, ran: Ran, site: str) -> None:
        ran.strikes[:] = [
            Strike(one.at, one.site, one.fault, time.time() - one.at)
            if one.site == site and one.seconds == float("inf")
            else one
            for one in ran.strikes
        ]

    def _settle(self, ran: Ran) -> bool:
        """Wait for the end, at most so long; return whether it paused itself instead."""
        file = ran.study.file
        attempts = file.training.rounds + file.training.spare_rounds + _RETRIES
        end = time.monotonic() + attempts * file.rounds.deadline_s + _DEAD_S
        while not ran.ended and time.monotonic() < end:
            facts = self.hospitals.status(ran.study.digest)
            if facts["state"] == "paused" and facts["stop_code"] in QUORUM_STOPS:
                return True
            time.sleep(_LOOK_S)
        return False

    def _watch(self, ran: Ran) -> None:
        while not ran.ended:
            try:
                with self.hospitals.operator() as operator:
                    self._follow(operator, ran)
            except LarreyError:
                time.sleep(_LOOK_S)

    def _follow(self, operator: Operator, ran: Ran) -> None:
        for event in operator.watch(ran.study.digest):
            if event.get("round"):
                event["waited"] = {
                    site: waited([self.stand.coordinator.pid, self.stand.sites[site].pid])
                    for site in self.lines
                }
            ran.events.append(event)
            if event.get("event") == "study-paused":
                ran.pauses.append((event["at"], event["code"]))
            if event.get("event") == "study-ended":
                ran.ended = True


def waited(pids: Sequence[int]) -> dict[str, float]:
    """Return by thread the seconds for which programs were ready and had no processor, so far.

    The kernel counts them (second number of schedstat); none where it does not.
    """
    found = {}
    for pid in [one for top in pids for one in (top, *descendants(top))]:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return found


@contextmanager
def weather(folder: Path, sites: Sequence[str]) -> Iterator[Weather]:
    """Yield a running federation in ``folder``; each site reaches the coordinator by its line."""
    workspace = create_workspace(folder / "federation", site_plans(folder, sites))
    name, _, port = workspace.address.partition(":")
    with Network() as network:
        lines = {site: network.line(int(port)) for site in sites}
        for site, line in lines.items():
            config = workspace.site(site)
            text = config.read_text()
            assert workspace.address in text
            config.write_text(text.replace(workspace.address, f"{name}:{line.port}"))
        with Stand(workspace) as stand:
            sites = stand.sites.values()
            until(lambda: all(one.count("trainer.warmed") for one in sites), _WARM_S)
            yield Weather(stand, lines)


def study_of(name: str, sites: Sequence[str], length: int = ROUNDS, **changes: Any) -> Study:
    """Return a study of the paced app of so many rounds; ``changes`` replace whole sections."""
    sections: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": list(HIDDEN)},
        "training": {
            "rounds": length, "spare_rounds": SPARES, "learning_rate": 1.0, "app": "paced",
        },
        "privacy": {"mechanism": "none", "max_update_norm": 1e3},
        "rounds": {"quorum": QUORUM, "deadline_s": DEADLINE_S, "patience": _PATIENCE},
        "sites": [{"name": site, "patients": 25} for site in sites],
    }  # fmt: skip
    return make_study(name, **(sections | changes))


def site_plans(folder: Path, sites: Sequence[str]) -> list[SitePlan]:
    """Return sites with rows of their own that let the test's apps train."""
    folder.mkdir(parents=True, exist_ok=True)
    apps = [
        {
            "name": name,
            "module": f"{name}_app:app",
            "digest": digest_bytes((APPS / f"{name}_app.py").read_bytes()),
            "unaccounted": True,
        }
        for name in ("seeded", "paced")
    ]
    policy = {"allow_without_dp": [DATASET], "apps": apps, "min_units": 20}
    plans = []
    for number, name in enumerate(sites):
        data = folder / f"{name}.csv"
        data.write_text(table(number))
        plans.append(SitePlan(name, data, DATASET, unit="pid", policy=policy))
    return plans
