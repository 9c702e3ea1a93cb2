"""Rules for every test: no skip in CI but for want of a GPU, one torch thread, shared starts.

What starts once for a file starts on one worker: a file's tests stay together, and so do all that
use the running federation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

# Files of tests/system that start programs of their own, or none.
_ALONE = {"test_demo.py", "test_docs.py", "test_isolated_network.py", "test_join.py"}

# How long an example takes says more about the machine than about the code.
settings.register_profile("larrey", deadline=None)
settings.load_profile("larrey")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


class _ByStart(LoadFileScheduling):
    """A file's tests on one worker, and on one worker too all that share the federation."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        folder, _, name = file.rpartition("/")
        return folder if folder == "tests/system" and name not in _ALONE else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByStart:  # Any: untyped there
    """Start once what files and the federation's tests share, whatever ``--dist`` says."""
    return _ByStart(config, log)


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
