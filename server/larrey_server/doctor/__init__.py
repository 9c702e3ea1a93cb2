"""`larrey doctor`: what would stop this coordinator, told before it does.

``probe`` measures, ``checks`` judges. Reads; writes one file without a name into the state folder
and asks its own port for a TLS handshake.
"""

from __future__ import annotations

from pathlib import Path

from larrey_protocol.checkup import Finding, examine
from larrey_server.doctor import probe
from larrey_server.doctor.checks import CHECKS
from larrey_server.settings import CoordinatorSettings

__all__ = ["CHECKS", "LIMIT_S", "look", "look_at_start"]

LIMIT_S = 28.0
_START_S = 5.0
_WHILE_RUNNING = "journal-not-held"


def look(settings: CoordinatorSettings, now: float, limit_s: float = LIMIT_S) -> list[Finding]:
    """Return what all checks find; ``now`` in seconds since 1970."""
    state: Path = settings.coordinator.state
    probes = {
        "identity": lambda: probe.identity(settings, now),
        "port": lambda: probe.port(settings),
        "state": lambda: probe.state(state),
        "journal": lambda: probe.journal(state),
        "spool": lambda: probe.spool(state / "spool"),
        "machine": probe.machine,
    }
    return examine(CHECKS, probes, limit_s)


def look_at_start(settings: CoordinatorSettings, now: float) -> list[Finding]:
    """Return what those checks find that are quick and do not ask for a running coordinator."""
    probes = {
        "identity": lambda: probe.identity(settings, now),
        "state": lambda: probe.state(settings.coordinator.state),
        "machine": probe.machine,
    }
    quick = [one for one in CHECKS if one.group in probes and one.code != _WHILE_RUNNING]
    return examine(quick, probes, _START_S)
