"""The gate's codes and the coordinator's reading of them are one list."""

from __future__ import annotations

import re

from larrey_client import gate
from larrey_protocol.refusals import STANDING_REFUSALS

_PER_ROUND = {
    "phase-unknown",
    "round-out-of-range",
    "deadline-passed",
    "model-wrong-size",
    "phase-too-early",
    "round-not-increasing",
    "too-many-attempts",
}


def test_every_gate_code_is_either_standing_or_about_one_round() -> None:
    codes = set(re.findall(r"^ +\d+  ([a-z]+(?:-[a-z]+)+) ", gate.__doc__ or "", re.MULTILINE))
    assert codes == STANDING_REFUSALS | _PER_ROUND
    assert not STANDING_REFUSALS & _PER_ROUND
