"""`larrey-site doctor`: what would stop this node or its training, told before it does.

One module a group: what its probe measures, the pure rules that judge it, and their lines of the
table. Reads; writes one file without a name into the state folder and asks each coordinator for a
TLS handshake, so that nothing about this site leaves beside its certificate.
"""

from __future__ import annotations

from larrey_client.doctor import certificates, data, machine, network, records, state, ways
from larrey_client.settings import SiteSettings
from larrey_protocol.checkup import Check, Finding, examine

__all__ = ["CHECKS", "LIMIT_S", "look", "look_at_start"]

LIMIT_S = 28.0
_START_S = 5.0
CHECKS: tuple[Check, ...] = (
    *network.CHECKS,
    *certificates.CHECKS,
    *machine.CHECKS,
    *state.CHECKS,
    *records.CHECKS,
    *data.CHECKS,
)


def look(settings: SiteSettings, now: float, limit_s: float = LIMIT_S) -> list[Finding]:
    """Return what all checks find; ``now`` in seconds since 1970."""
    probes = {
        "network": lambda: ways.look(settings),
        "certificates": lambda: certificates.look(settings, now),
        "machine": lambda: machine.look(settings),
        "state": lambda: state.look(settings),
        "records": lambda: records.look(settings),
        "data": lambda: data.look(settings, now),
    }
    return examine(CHECKS, probes, limit_s)


def look_at_start(settings: SiteSettings, now: float) -> list[Finding]:
    """Return what those checks find that take no network, no trial and no long reading."""
    probes = {
        "certificates": lambda: certificates.look(settings, now),
        "state": lambda: state.look(settings),
        "data": lambda: data.look(settings, now),
    }
    return examine([one for one in CHECKS if one.group in probes], probes, _START_S)
