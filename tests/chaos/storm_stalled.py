"""Two of eight sites stall in the middle of a study: do the others answer as fast as before?

    python tests/chaos storm_stalled --out FOLDER [--rounds N] [--folder FOLDER]

The stalled sites stay connected and nothing passes, so that the coordinator sends them a large
model in vain. Compared within one run: the seconds from a round's opening to the last answer of the
six others, and those of whole rounds. ``storm_stalled.json`` has the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from larrey_protocol.study import Study
from tests.chaos.proxy import Fault
from tests.chaos.weather import Weather, study_of, weather

SITES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
STALLED = SITES[:2]
_DEADLINE_S = 6.0
_MOST_RATIO = 1.25


@dataclass
class Pace:
    """Seconds of each round, in order: to the last answer of the sites that work, and in all."""

    answered: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    outcomes: list[dict[str, str]] = field(default_factory=list)

    def between(self, first: int, last: int) -> tuple[float, float]:
        """Return the medians of some rounds, numbered from 1, both ends included."""
        part = slice(first - 1, last)
        return statistics.median(self.answered[part]), statistics.median(self.whole[part])


def study_with(rounds: int) -> Study:
    return study_of(
        "stalled",
        SITES,
        rounds,
        rounds={"quorum": len(SITES) - len(STALLED), "deadline_s": _DEADLINE_S},
    )


def follow(sky: Weather, study: Study, stall_after: int) -> Pace:
    """Run the study; stall the sites once so many rounds are applied."""
    pace, opened, last = Pace(), time.time(), 0.0
    with sky.hospitals.operator() as operator:
        operator.launch(study.digest)
        for event in operator.watch(study.digest):
            match event.get("event"):
                case "round-opened":
                    opened = event["at"]
                case "site-answered" if event["site"] not in STALLED:
                    last = event["at"]
                case "round-applied":
                    pace.answered.append(last - opened)
                    pace.whole.append(event["at"] - opened)
                    cells = event["sites"].items()
                    pace.outcomes.append({site: cell["outcome"] for site, cell in cells})
                    if event["round"] == stall_after:
                        for site in STALLED:
                            sky.lines[site].strike(Fault("stall"))
    sky.heal()
    return pace


def figures(pace: Pace, stall_after: int) -> dict[str, Any]:
    """Return both paces, for whoever adds up all chaos; the first rounds of each are warm-up."""
    rounds = len(pace.whole)
    before = pace.between(3, stall_after)
    after = pace.between(stall_after + 2, rounds)
    struck = pace.outcomes[stall_after + 1 :]
    others = [row[site] for row in struck for site in SITES if site not in STALLED]
    lost = sum(pace.whole[stall_after:]) - before[1] * (rounds - stall_after)
    return {
        "stalled_others_ratio": round(after[0] / before[0], 3),
        "stalled_round_ratio": round(after[1] / before[1], 3),
        "stalled_round_seconds": [round(seconds, 2) for seconds in pace.whole],
        "stalled_seconds_lost": round(lost, 1),
        "stalled_others_contributed_share": others.count("contributed") / len(others),
        "stalled_rounds": rounds,
        "faults_injected": len(STALLED),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and write ``storm_stalled.json``; not 0 above a ratio of 1.25."""
    parser = argparse.ArgumentParser(prog="python tests/chaos storm_stalled")
    parser.add_argument("--out", type=Path, required=True, help="folder for storm_stalled.json")
    parser.add_argument("--rounds", type=int, default=40, help="half of them before the stall")
    parser.add_argument("--folder", type=Path, help="keep all state here")
    options = parser.parse_args(arguments)
    half = options.rounds // 2
    with (
        tempfile.TemporaryDirectory(prefix="larrey-stalled-") as scratch,
        weather(options.folder or Path(scratch), SITES) as sky,
    ):
        study = study_with(options.rounds)
        sky.hospitals.propose(study)
        sky.await_all()
        found = figures(follow(sky, study, half), half)
    sys.stdout.write("".join(f"{name:36} {value}\n" for name, value in found.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "storm_stalled.json").write_text(json.dumps(found, indent=2) + "\n")
    is_same = found["stalled_others_ratio"] <= _MOST_RATIO
    return 0 if is_same and found["stalled_others_contributed_share"] == 1 else 1
