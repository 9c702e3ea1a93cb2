"""Rules for every test: no skip in CI but for want of a GPU, one torch thread."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    """Turn a skip into a failure where the machine is supposed to have everything."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and _must_run(str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report


def _must_run(reason: str) -> bool:
    return bool(os.environ.get("LARREY_FAIL_ON_SKIP")) and "needs a GPU" not in reason


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[pytest.CollectReport]:
    """Apply the same rule to a module that skips itself as a whole."""
    report = yield
    if report.outcome == "skipped" and _must_run(str(report.longrepr)):
        report.outcome = "failed"
    return report
