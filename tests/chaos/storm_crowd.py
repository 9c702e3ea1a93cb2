"""200 sites poll and 50 persons watch while a large model is aggregated: is health still told?

    python tests/chaos storm_crowd --out FOLDER [--megabytes N] [--polls N] [--watchers N]

Coordinator and two training sites are the real programs; the crowd is a process of its own that
polls and watches with the product's own calls. ``storm_crowd.json`` has the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from larrey_client.credentials import read_tls
from larrey_client.exchange import Exchange
from larrey_client.settings import load_settings
from larrey_lab.federation import paperwork
from larrey_lab.federation.workspace import Workspace, create_workspace
from larrey_protocol.errors import LarreyError
from larrey_protocol.study import Study
from larrey_server.operator import Operator
from larrey_server.settings import load_operator
from tests.chaos.kills import quantile
from tests.chaos.stand import Stand
from tests.chaos.storm_transfer import wide
from tests.chaos.weather import site_plans, study_of
from tests.system.hospitals import until

SITES = ("alpha", "beta")
_ROUNDS = 4
_PAUSE_S = 0.01  # between two questions for health
_READY = "ready\n"
_LIMIT_S = 300.0


@dataclass
class Seen:
    """Health's answers: when each was asked for, in seconds since 1970, and its seconds."""

    answers: list[tuple[float, float]] = field(default_factory=list)
    failures: int = 0
    aggregating: list[tuple[float, float]] = field(default_factory=list)

    def during(self) -> list[float]:
        """Return the seconds of answers asked for while a model was aggregated, sorted."""
        return sorted(
            seconds
            for at, seconds in self.answers
            if any(begin <= at <= end for begin, end in self.aggregating)
        )


def large_study(megabytes: float) -> Study:
    return study_of(
        "crowd",
        SITES,
        model={"name": "mlp", "hidden": wide(megabytes)},
        training={"rounds": _ROUNDS, "spare_rounds": 0, "learning_rate": 1.0, "app": "seeded"},
        rounds={"quorum": 2, "deadline_s": 600.0},
    )


def watch_health(workspace: Workspace, ended: threading.Event, seen: Seen) -> None:
    """Ask for health, over a connection of an operator, again and again."""
    settings = load_operator(workspace.operator)
    credentials = grpc.ssl_channel_credentials(
        settings.coordinator.authority.read_bytes(),
        settings.identity.key.read_bytes(),
        settings.identity.certificate.read_bytes(),
    )
    with grpc.secure_channel(settings.coordinator.address, credentials) as channel:
        stub = HealthStub(channel)
        while not ended.wait(_PAUSE_S):
            at, began = time.time(), time.perf_counter()
            try:
                stub.Check(HealthCheckRequest(), timeout=10)
            except grpc.RpcError:
                seen.failures += 1
            seen.answers.append((at, time.perf_counter() - began))


def observe(workspace: Workspace, study: Study) -> Seen:
    """Run the study to its end and ask for health all the while."""
    seen, ended, closed = Seen(), threading.Event(), 0.0
    asking = threading.Thread(target=watch_health, args=(workspace, ended, seen), daemon=True)
    with Operator(load_operator(workspace.operator)) as operator:
        asking.start()
        operator.launch(study.digest)
        for event in operator.watch(study.digest):
            if event.get("event") == "round-closed":
                closed = event["at"]
            elif event.get("event") == "round-applied":
                seen.aggregating.append((closed, event["at"]))
            elif event.get("event") == "study-ended":
                assert event["outcome"] == "COMPLETE", event
    ended.set()
    asking.join()
    return seen


@contextmanager
def crowd(workspace: Workspace, study: str, polls: int, watchers: int) -> Iterator[None]:
    """Have so many sites poll and so many persons watch, in a process of their own."""
    command = [sys.executable, str(Path(__file__).parent), "storm_crowd", "--guests"]
    command += [str(workspace.folder), study, str(polls), str(watchers)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == _READY
            yield
        finally:
            process.stdin.close()


def _be_guests(folder: Path, study: str, polls: int, watchers: int) -> int:
    """Poll and watch until the standard input ends."""
    workspace = Workspace(folder, "", ())
    answered: set[str] = set()
    watching: set[int] = set()

    def poll(name: str) -> None:
        settings = load_settings(workspace.site(name))
        tls = read_tls(settings.members[0])
        exchange = Exchange(settings.coordinator.address, tls, lambda *_: None)
        revision = 0
        while True:
            with suppress(LarreyError):
                revision = exchange.take("crowd", revision).studies_revision
                answered.add(name)

    def watch(number: int) -> None:
        with Operator(load_operator(workspace.operator)) as operator, suppress(LarreyError):
            for _ in operator.watch(study):
                watching.add(number)

    for number in range(polls):
        threading.Thread(target=poll, args=(guest(number),), daemon=True).start()
    for number in range(watchers):
        threading.Thread(target=watch, args=(number,), daemon=True).start()
    until(lambda: len(answered) == polls and len(watching) == watchers, _LIMIT_S)
    sys.stdout.write(_READY)
    sys.stdout.flush()
    sys.stdin.read()
    return 0


def guest(number: int) -> str:
    return f"guest-{number:03}"


def make_crowd_stand(folder: Path, polls: int) -> Stand:
    """Return a coordinator that knows two sites that train and so many that only poll."""
    names = (*SITES, *(guest(number) for number in range(polls)))
    whole = create_workspace(folder / "federation", site_plans(folder, names))
    there = replace(whole, sites=SITES, datasets=whole.datasets[: len(SITES)])
    return Stand(there)


def figures(seen: Seen, calm: Sequence[float]) -> dict[str, Any]:
    """Return how fast health was told, for whoever adds up all chaos."""
    during = seen.during()
    every = sorted(seconds for _, seconds in seen.answers)
    return {
        "heartbeat_p99_during_aggregation_ms": round(1000 * quantile(during, 0.99), 1),
        "heartbeat_median_during_aggregation_ms": round(1000 * quantile(during, 0.5), 1),
        "heartbeat_samples_during_aggregation": len(during),
        "heartbeat_p99_ms": round(1000 * quantile(every, 0.99), 1),
        "heartbeat_p99_before_ms": round(1000 * quantile(sorted(calm), 0.99), 1),
        "heartbeat_failures": seen.failures,
        "aggregation_seconds": round(
            statistics.median(end - begin for begin, end in seen.aggregating), 2
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write ``storm_crowd.json``; not 0 where health took more than 100 ms at p99."""
    parser = argparse.ArgumentParser(prog="python tests/chaos storm_crowd")
    parser.add_argument("--out", type=Path, help="folder for storm_crowd.json")
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--polls", type=int, default=200)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--guests", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.guests:
        folder, digest, polls, watchers = options.guests
        return _be_guests(Path(folder), digest, int(polls), int(watchers))
    with tempfile.TemporaryDirectory(prefix="larrey-crowd-") as scratch:
        study = large_study(options.megabytes)
        with make_crowd_stand(Path(scratch), options.polls) as stand:
            with Operator(load_operator(stand.workspace.operator)) as operator:
                paperwork.propose(stand.workspace, operator, study)
            paperwork.approve(stand.workspace, study)
            others = options.watchers - 1  # one is here
            with crowd(stand.workspace, study.digest, options.polls, others):
                seen = observe(stand.workspace, study)
    first = min((begin for begin, _ in seen.aggregating), default=0.0)
    found = figures(seen, [seconds for at, seconds in seen.answers if at < first])
    found |= {"polls": options.polls, "watchers": options.watchers}
    sys.stdout.write("".join(f"{name:40} {value}\n" for name, value in found.items()))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "storm_crowd.json").write_text(json.dumps(found, indent=2) + "\n")
    is_told = found["heartbeat_p99_during_aggregation_ms"] <= 100
    return 0 if is_told and not seen.failures and seen.during() else 1
