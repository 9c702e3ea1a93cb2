"""Seeded random schedules of faults on every connection of a running federation.

    python tests/chaos storm --out FOLDER [--seed N] [--count N] [--folder FOLDER]

Four sites and a coordinator run as a hospital runs them; one study a schedule. Each has to end
COMPLETE, or PARTIAL with a certificate that names who missed what, or to pause for want of quorum
and go on once the network is back. ``storm.json`` has the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from larrey_protocol.models import model_layout
from larrey_protocol.signed import Certificate, open_signed
from tests.chaos.schedules import Strike, scaled, schedule
from tests.chaos.storm_rules import complaints, debts, disk_complaints, excused
from tests.chaos.weather import DEADLINE_S, QUORUM, ROUNDS, Ran, Weather, study_of, weather

SITES = ("alpha", "beta", "gamma", "delta")
_MOST_EXCUSED = 0.1  # a schedule
_CALM = 2  # studies without a fault, for their time


@dataclass
class Played:
    """One schedule: what ran, how it ended, what is wrong."""

    seed: int
    ran: Ran
    outcome: str
    complaints: list[str] = field(default_factory=list)
    again: int = 0  # debits for what was paid for
    unpaid: int = 0  # updates without a debit


def play(sky: Weather, seeds: Sequence[int | None], rounds: int = ROUNDS) -> Iterator[Played]:
    """Yield each schedule as it is over; a seed of None is one without a fault."""
    for number, seed in enumerate(seeds):
        study = study_of(f"storm-{number}", SITES, rounds)
        strikes: tuple[Strike, ...] = ()
        if seed is not None:
            nbytes = model_layout(study).nbytes
            strikes = scaled(schedule(seed, SITES, QUORUM, nbytes), DEADLINE_S)
        sky.hospitals.propose(study)  # every site is there once it has approved
        yield _judged(sky, -1 if seed is None else seed, sky.run(study, strikes))


def _judged(sky: Weather, seed: int, ran: Ran) -> Played:
    found = list(complaints(ran))
    if not ran.ended:
        return Played(seed, ran, sky.hospitals.status(ran.study.digest)["state"], found)
    with sky.hospitals.operator() as operator:
        signed = operator.certificate(ran.study.digest)
    folder = sky.workspace.folder / "replay" / ran.study.name
    found += disk_complaints(sky.workspace, ran, signed, folder)
    certificate = open_signed(signed, Certificate, signed.signer)
    again, unpaid = map(sum, zip(*debts(sky.workspace, certificate).values(), strict=True))
    return Played(seed, ran, certificate.outcome, found, again, unpaid)


def figures(played: Sequence[Played], calm_s: float) -> dict[str, Any]:
    """Return what the schedules did, for whoever adds up all chaos."""
    strikes = [(one, strike) for one in played for strike in one.ran.strikes]
    survived = sum(not one.complaints for one, _ in strikes)
    lost: defaultdict[str, float] = defaultdict(float)
    for one in played:
        total = sum(strike.seconds for strike in one.ran.strikes)
        for strike in one.ran.strikes:  # each fault has its share of the time, by how long it was
            lost[strike.fault.kind] += max(0.0, one.ran.seconds - calm_s) * strike.seconds / total
    count = Counter(strike.fault.kind for _, strike in strikes)
    return {
        "schedules_run": len(played),
        "schedules_survived": sum(not one.complaints for one in played),
        "faults_injected": len(strikes),
        "faults_survived_share": survived / len(strikes) if strikes else 1.0,
        "faults": dict(sorted(count.items())),
        "seconds_lost": {kind: round(lost[kind], 1) for kind in sorted(lost)},
        "seconds_lost_a_fault": {kind: round(lost[kind] / count[kind], 2) for kind in sorted(lost)},
        "seconds_undisturbed": round(calm_s, 2),
        "outcomes": dict(Counter(one.outcome for one in played)),
        "pauses": sum(len(one.ran.pauses) for one in played),
        "rounds_lost": sum(
            text.startswith("applied were") for one in played for text in one.complaints
        ),
        "debits_for_resending": sum(one.again for one in played),
        "released_without_debit": sum(one.unpaid for one in played),
        "absences_excused": sum(excused(one.ran) for one in played),
        "complaints": {one.seed: one.complaints for one in played if one.complaints},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the schedules, print a line each, and write ``storm.json``."""
    parser = argparse.ArgumentParser(prog="python tests/chaos storm")
    parser.add_argument("--out", type=Path, required=True, help="folder for storm.json")
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="keep all state here")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    seeds = [None] * _CALM + list(range(options.seed, options.seed + options.count))
    with tempfile.TemporaryDirectory(prefix="larrey-storm-") as scratch:
        played = []
        with weather(options.folder or Path(scratch), SITES) as sky:
            for one in play(sky, seeds):
                played.append(one)
                _say(time.monotonic() - began, one)
            deaths = sky.stand.unwanted_deaths()
    calm = statistics.median(one.ran.seconds for one in played[:_CALM])
    found = figures(played[_CALM:], calm) | {"deaths": len(deaths)}
    found["seconds"] = round(time.monotonic() - began, 1)
    sys.stdout.write("".join(f"{name:32} {value}\n" for name, value in found.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "storm.json").write_text(json.dumps(found, indent=2) + "\n")
    is_fit = found["absences_excused"] <= _MOST_EXCUSED * len(played)
    if not is_fit:
        sys.stdout.write("this machine was too busy to judge who is late\n")
    return 1 if found["complaints"] or deaths or not is_fit else 0


def _say(at: float, one: Played) -> None:
    kinds = Counter(strike.fault.kind for strike in one.ran.strikes)
    what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "calm"
    verdict = "survived" if not one.complaints else "FAILED  "
    text = f"{at:7.1f} s  {verdict}  {one.seed:4}  {one.outcome:8} {one.ran.seconds:5.1f} s  {what}"
    sys.stdout.write("\n    ".join([text, *one.complaints]) + "\n")
    sys.stdout.flush()
