"""A connection of which one direction died without a word: when does either end know?

    python tests/chaos storm_silence --out FOLDER

One site's way up dies, another one's way down, a third one's both; nothing ever resets them. Each
has to call over a new connection, and the coordinator has to close the old one, within the seconds
that keepalive and the long poll promise. ``storm_silence.json`` has the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from larrey_protocol.streams import STREAM_OPTIONS
from larrey_server.flower.fleet import LONG_POLL_S
from tests.chaos.proxy import UP_DOWN, Fault, Way
from tests.chaos.weather import Weather, weather
from tests.system.hospitals import until

WAYS: dict[str, tuple[Way, ...]] = {"alpha": ("up",), "beta": ("down",), "gamma": UP_DOWN}
_OPTIONS = dict(STREAM_OPTIONS)
# The poll in flight may still be answered; then nothing comes, and then no answer to a ping.
MOST_S = (
    LONG_POLL_S
    + (_OPTIONS["grpc.keepalive_time_ms"] + _OPTIONS["grpc.http2.ping_timeout_ms"]) / 1000
)
_BACK_S = 5.0  # to connect anew and to be answered


def silence(sky: Weather) -> dict[str, float]:
    """Let the lines die, and return after how many seconds each site called anew."""
    before = {site: line.events["connected"] for site, line in sky.lines.items()}
    began = time.monotonic()
    found: dict[str, float] = {}
    for site, ways in WAYS.items():
        sky.lines[site].strike(Fault("half-open", ways))

    def all_are_back() -> bool:
        for site, line in sky.lines.items():
            if site not in found and line.events["connected"] > before[site]:
                found[site] = time.monotonic() - began
        return len(found) == len(WAYS)

    until(all_are_back, MOST_S + _BACK_S)
    sky.await_all()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write ``storm_silence.json``."""
    parser = argparse.ArgumentParser(prog="python tests/chaos storm_silence")
    parser.add_argument("--out", type=Path, required=True, help="folder for storm_silence.json")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="larrey-silence-") as scratch,
        weather(Path(scratch), list(WAYS)) as sky,
    ):
        sky.await_all()
        seconds = silence(sky)
        # Of a dead connection both ends have to be closed: the coordinator keeps none open.
        until(lambda: all(line.links == 1 for line in sky.lines.values()), MOST_S)
    found: dict[str, Any] = {
        "silence_seconds": {"+".join(WAYS[site]): round(s, 1) for site, s in seconds.items()},
        "faults_injected": len(WAYS),
        "silence_most_seconds": MOST_S + _BACK_S,
    }
    sys.stdout.write("".join(f"{name:32} {value}\n" for name, value in found.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "storm_silence.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0
