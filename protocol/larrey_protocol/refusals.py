"""Codes with which a site declines a study as such, so that it need not be asked again.

Every other code concerns one round. The hospital's gate (`larrey_client.gate`) and the
coordinator's rounds (`larrey_server.rounds`) share this list; a test holds it against the gate.
"""

from __future__ import annotations

__all__ = ["STANDING_REFUSALS"]

STANDING_REFUSALS = frozenset(
    {
        "app-digest-differs",
        "app-not-listed",
        "budget-exhausted",
        "dataset-unknown",
        "delta-above-cap",
        "digest-mismatch",
        "epsilon-above-cap",
        "epsilon-understated",
        "mechanism-none",
        "mechanism-unaccounted",
        "noise-below-minimum",
        "not-held",
        "site-not-invited",
        "strategy-unknown",
        "study-closed",
        "study-not-approved",
        "unit-differs",
        "units-below-minimum",
    }
)
