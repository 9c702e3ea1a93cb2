"""Codes with which a site declines a study as such, so that it need not be asked again.

Every other code concerns one round. The hospital's gate (`larrey_client.gate`) and the
coordinator's rounds (`larrey_server.rounds`) share this list; a test holds it against the gate.
"""

from __future__ import annotations

__all__ = ["ABOUT_DATA", "MAY_LEAVE", "STANDING_REFUSALS"]

STANDING_REFUSALS = frozenset(
    {
        "app-digest-differs",
        "app-not-listed",
        "approval-revoked",
        "budget-exhausted",
        "dataset-unknown",
        "delta-above-cap",
        "digest-mismatch",
        "epsilon-above-cap",
        "epsilon-understated",
        "mechanism-none",
        "mechanism-unaccounted",
        "metrics-not-listed",
        "noise-below-minimum",
        "not-an-amendment",
        "not-held",
        "site-not-invited",
        "strategy-unknown",
        "study-closed",
        "study-not-approved",
        "study-superseded",
        "unit-differs",
        "units-below-minimum",
    }
)

# Refusals that would tell something about rows or their number; they leave as ``site-not-ready``.
ABOUT_DATA = frozenset({"families-bridged", "small-cell", "units-below-minimum"})

# Every code that a hospital's border lets pass; any other leaves as ``node-failed``. None tells
# anything about rows: whatever would, and the site's own stops, is ``site-not-ready``.
MAY_LEAVE = (STANDING_REFUSALS - ABOUT_DATA) | frozenset(
    {
        "answer-damaged",
        "answer-expired",
        "app-failed",
        "app-not-found",
        "app-reads-all-rows",
        "audit-behind-anchor",
        "clock-set-back",
        "dataset-not-permitted",
        "dataset-unregistered",
        "deadline-passed",
        "device-lost",
        "document-altered",
        "duties-not-separate",
        "ledger-behind",
        "model-altered",
        "model-buffers",
        "model-couples-patients",
        "model-malformed",
        "model-not-finite",
        "model-wrong-size",
        "model-wrong-tensors",
        "node-failed",
        "not-launched",
        "not-offered",
        "order-stale",
        "outside-window",
        "permit-changed",
        "permit-expired",
        "permit-not-countersigned",
        "permit-not-yet-valid",
        "permit-revoked",
        "permit-unknown",
        "person-not-permitted",
        "phase-too-early",
        "phase-unknown",
        "policy-unsigned",
        "purpose-not-permitted",
        "refused-by-site",
        "reply-wrong-metrics",
        "reply-wrong-tensors",
        "request-malformed",
        "roster-changed",
        "round-not-increasing",
        "round-out-of-range",
        "shared-memory-full",
        "site-not-on-roster",
        "site-not-permitted",
        "site-not-ready",
        "study-ended",
        "study-halted",
        "superseded",
        "too-many-attempts",
        "trainer-crashed",
        "trainer-failed",
        "trainer-stopped",
        "trainer-timeout",
        "update-malformed",
        "update-not-finite",
        "update-over-norm",
        "update-too-large",
        "update-wrong-tensors",
    }
)
