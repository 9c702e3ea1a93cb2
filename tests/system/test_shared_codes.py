"""The gate's codes and the coordinator's reading of them are one list."""

from __future__ import annotations

import re

from larrey_client import gate
from larrey_protocol.refusals import STANDING_REFUSALS

# What a new permit version, a signature, an order or a repair can end, so that asking again helps.
_PASSING = {
    "audit-behind-anchor",
    "clock-set-back",
    "dataset-not-permitted",
    "dataset-unregistered",
    "document-altered",
    "duties-not-separate",
    "ledger-behind",
    "not-launched",
    "permit-changed",
    "permit-expired",
    "permit-not-countersigned",
    "permit-not-yet-valid",
    "permit-revoked",
    "permit-unknown",
    "person-not-permitted",
    "policy-unsigned",
    "purpose-not-permitted",
    "roster-changed",
    "site-not-on-roster",
    "site-not-permitted",
    "site-not-ready",
    "study-halted",
}
_PER_ROUND = {
    "phase-unknown",
    "round-out-of-range",
    "deadline-passed",
    "model-wrong-size",
    "phase-too-early",
    "round-not-increasing",
    "too-many-attempts",
}


def test_every_gate_code_is_standing_or_passing_or_about_one_round() -> None:
    codes = set(re.findall(r"^ +\d+  ([a-z]+(?:-[a-z]+)+) ", gate.__doc__ or "", re.MULTILINE))
    assert codes == STANDING_REFUSALS | _PASSING | _PER_ROUND
    assert not STANDING_REFUSALS & (_PASSING | _PER_ROUND)
