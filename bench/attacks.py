"""Try every listed attack and count: the share that ended in its code, with nothing spent or sent.

Runs the very tests of tests/attacks, so that a number can never be better than what they assert.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

__all__ = ["run"]

_TESTS = Path(__file__).parents[1] / "tests" / "attacks"
_ATTACK = "test_the_attack_ends_in_its_code_and_nothing_else"


class _Counter:
    """Notes each attack's worst outcome; a plugin of pytest."""

    def __init__(self) -> None:
        self.outcomes: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if _ATTACK in report.nodeid:
            so_far = self.outcomes.get(report.nodeid, True)
            self.outcomes[report.nodeid] = so_far and report.passed


def run() -> dict[str, Any]:  # Any: JSON
    """Return ``attacks_tried`` and ``attacks_refused_share``, from 0 to 1.

    Raises:
        RuntimeError: no attack was tried.
    """
    counter = _Counter()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["-q", "-n0", "-p", "no:randomly", str(_TESTS)], plugins=[counter])
    if not counter.outcomes:
        raise RuntimeError("no attack was tried: run it from a checkout with the dev requirements")
    refused = sum(counter.outcomes.values())
    return {
        "attacks_tried": len(counter.outcomes),
        "attacks_refused_share": refused / len(counter.outcomes),
    }


if __name__ == "__main__":
    print(run())
