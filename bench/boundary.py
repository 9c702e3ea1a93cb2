"""The hospital's border, in figures: attacks, kills, decisions, bytes, and the way in.

Attacks are those of the test suite's list, by a peer that speaks the real protocol. Kills hit a
real process that spends its ledger. Bytes are counted twice, by the coordinator as they arrive and
by each site's own log as they leave. Joining is timed over real processes.
"""

from __future__ import annotations

import sys
import time
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench import parts
from bench.attacks import run as run_attacks
from bench.harness import Figure, finish
from bench.joining import measure as measure_joining
from bench.ledger_kills import kills
from bench.noop_federation import make_study, noop_workspace
from larrey_client.egress_log import open_log, unaccounted
from larrey_client.settings import load_settings
from larrey_lab.federation.paperwork import approve, propose
from larrey_lab.federation.processes import Federation
from larrey_server.operator import Operator
from larrey_server.settings import load_coordinator, load_operator

_KILLS = 200
_ROUNDS = 20


def main() -> int:
    attacks = run_attacks()
    report = kills(_KILLS)
    decisions = 1 / parts.prices()["gate_ms"]
    missing, total = bytes_of_a_study()
    joining = measure_joining()
    share = attacks["attacks_refused_share"]
    tried = f"{attacks['attacks_tried']:.0f} attacks"
    figures = [
        Figure("attacks_tried", attacks["attacks_tried"], "", ">=", 40),
        Figure("attacks_refused_share", share, "", ">=", 1.0, count=tried),
        Figure("ledger_kills_survived", report.survived, "", ">=", _KILLS, count=f"of {_KILLS}"),
        Figure("ledger_rounds_released", report.released),
        Figure("ledger_rounds_held_as_spent", report.reserved, "", ">=", report.released),
        Figure("gate_decisions_per_second", decisions, "1/s", count="median of 200"),
        Figure("bytes_unaccounted", missing, "B", "<=", 0, count=f"{total} bytes, 4 sites"),
        Figure("join_commands", joining["join_commands"]),
        Figure("join_seconds", joining["join_seconds"], "s"),
    ]
    notes = [
        "bytes_unaccounted: bytes of requests that the coordinator counted and that the egress log",
        f"of the site does not hold, summed over the sites of a study of {_ROUNDS} rounds.",
        "A decision is a request of a private study that passes every rule of the gate.",
    ]
    return finish("boundary", "make bench-boundary", figures, notes=notes)


def bytes_of_a_study() -> tuple[int, int]:
    """Return bytes that no site's log explains, and all bytes received, of one whole study."""
    study = make_study(4, (100, 95), _ROUNDS)
    with noop_workspace(study, metrics=True) as federation:
        federation.start_coordinator()
        federation.start_sites()
        with Operator(load_operator(federation.workspace.operator)) as operator:
            digest = propose(federation.workspace, operator, study)
            approve(federation.workspace, study)
            operator.launch(digest)
            for _ in operator.watch(digest):
                pass
        for name in study.file.site_names:
            federation.kill(name)  # so that nothing is on its way when both are read
        time.sleep(1.0)
        return _compare(federation)


def _compare(federation: Federation) -> tuple[int, int]:
    address = load_coordinator(federation.workspace.coordinator).listen.metrics
    with urllib.request.urlopen(f"http://{address}/metrics") as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    received = {
        sample.labels["site"]: int(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "larrey_received_bytes_total"
    }
    missing = 0
    for name in federation.workspace.sites:
        state: Path = load_settings(federation.workspace.site(name)).site.state
        missing += unaccounted(open_log(state).total_bytes(), received[name])
    return missing, sum(received.values())


if __name__ == "__main__":
    sys.exit(main())
