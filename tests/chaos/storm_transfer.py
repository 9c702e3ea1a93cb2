"""A large model and its update over a narrow line, cut and with the node killed in the middle.

    python tests/chaos storm_transfer --out FOLDER [--megabytes N] [--megabits N] [--folder FOLDER]

Both ways the connection ends by RST after a third of the bytes, and the node is killed after two
thirds; the transfer has to go on where it was. ``transfer.json`` has the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from larrey_client.exchange import CHUNK_BYTES as SENT_BYTES
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_server.exchange_service import CHUNK_BYTES as SERVED_BYTES
from tests.chaos import proofs
from tests.chaos.proxy import Fault, Way
from tests.chaos.weather import Weather, study_of, weather
from tests.system.hospitals import until

SITE = "alpha"
_BREAKS = 2  # each way: a cut and a kill
_ENVELOPES = 1.01  # TLS, HTTP/2 and everything else that is said: at most so much more
_TALK = 1 << 20
_CHUNKS: dict[Way, int] = {"up": SENT_BYTES, "down": SERVED_BYTES}
_LABELS: dict[Way, str] = {"up": "agent.update-part-sent", "down": "agent.model-part-fetched"}
_BREAK_S = 60.0  # for a kill, a new start and the imports


@dataclass(frozen=True)
class Moved:
    """What passed of one model and one update."""

    nbytes: int
    passed: dict[Way, int]
    seconds: float
    spent: int  # debits

    def most(self, way: Way) -> float:
        """Return the bytes that may pass: the file, a chunk a break, envelopes."""
        return _ENVELOPES * (self.nbytes + _BREAKS * _CHUNKS[way]) + _TALK

    @property
    def is_resumed(self) -> bool:
        enough = all(self.passed[way] >= self.nbytes for way in _CHUNKS)
        return enough and all(self.passed[way] <= self.most(way) for way in _CHUNKS)


def wide(megabytes: float) -> list[int]:
    """Return the hidden widths of a perceptron with about so many megabytes."""
    numbers = megabytes * 1e6 / 4
    squares = math.ceil(numbers / 4096**2)  # no layer is wider than that
    return [math.isqrt(int(numbers / squares))] * (squares + 1)


def large_study(megabytes: float) -> Study:
    """Return a study of one round and site whose model has about so many megabytes."""
    return study_of(
        "large",
        [SITE],
        model={"name": "mlp", "hidden": wide(megabytes)},
        training={"rounds": 1, "spare_rounds": 0, "learning_rate": 1.0, "app": "seeded"},
        rounds={"quorum": 1, "deadline_s": 3600.0},
    )


def move(sky: Weather, study: Study, rate: float) -> Moved:
    """Run the study over a line of so many bytes a second, and break it four times."""
    line, node, nbytes = sky.lines[SITE], sky.stand.sites[SITE], model_layout(study).nbytes
    patience = nbytes / rate + _BREAK_S
    narrow = Fault("bandwidth", rate=rate)
    sky.hospitals.propose(study)
    before = dict(line.passed)
    began = time.monotonic()
    for way in ("down", "up"):
        parts = nbytes // _CHUNKS[way]
        node.arm((_LABELS[way], max(1, parts // 3)))  # after the cut: of a new process
        line.strike(narrow, Fault("cut", (way,), after=nbytes // 3))
        if way == "down":
            with sky.hospitals.operator() as operator:
                operator.launch(study.digest)
        node.await_kill(_LABELS[way], patience)
    until(lambda: sky.hospitals.status(study.digest)["state"] == "ended", patience)
    assert sky.hospitals.finish(study.digest).outcome == "COMPLETE"
    passed: dict[Way, int] = {way: line.passed[way] - before.get(way, 0) for way in _CHUNKS}
    spent = proofs.spent(sky.workspace, SITE, study.digest).reserved.total()
    return Moved(nbytes, passed, time.monotonic() - began, spent)


def figures(moved: Moved, rate: float) -> dict[str, Any]:
    """Return what passed, for whoever adds up all chaos."""
    return {
        "transfer_bytes": moved.nbytes,
        "transfer_megabits_a_second": rate * 8 / 1e6,
        "transfer_breaks": _BREAKS * len(_CHUNKS),
        "transfer_passed_share_up": round(moved.passed["up"] / moved.nbytes, 4),
        "transfer_passed_share_down": round(moved.passed["down"] / moved.nbytes, 4),
        "transfer_seconds": round(moved.seconds, 1),
        "transfer_is_resumed": moved.is_resumed,
        "transfer_debits": moved.spent,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Move one model and its update, and write ``transfer.json``."""
    parser = argparse.ArgumentParser(prog="python tests/chaos storm_transfer")
    parser.add_argument("--out", type=Path, required=True, help="folder for transfer.json")
    parser.add_argument("--megabytes", type=float, default=500.0)
    parser.add_argument("--megabits", type=float, default=200.0, help="a second, each way")
    parser.add_argument("--folder", type=Path, help="keep all state here")
    options = parser.parse_args(arguments)
    rate = options.megabits * 1e6 / 8
    with (
        tempfile.TemporaryDirectory(prefix="larrey-transfer-") as scratch,
        weather(options.folder or Path(scratch), [SITE]) as sky,
    ):
        found = figures(move(sky, large_study(options.megabytes), rate), rate)
    sys.stdout.write("".join(f"{name:32} {value}\n" for name, value in found.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "transfer.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["transfer_is_resumed"] and found["transfer_debits"] == 1 else 1
