"""Named points of a round, where whoever tests the processes may stand.

``reached("agent.reserved")`` does nothing by itself. A test process sets `visit` before the product
starts, and may then end the process at exactly that point: what a kill leaves behind is tried at
every one of them (tests/chaos/kill_points.toml lists all).
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["reached", "visit"]


def _pass_by(label: str) -> None:
    """Do nothing: nobody stands there."""


_visitor: Callable[[str], None] = _pass_by


def visit(visitor: Callable[[str], None]) -> None:
    """Have ``visitor`` called with the label of every point that this process reaches."""
    global _visitor  # noqa: PLW0603 - one process, one visitor, set before anything runs
    _visitor = visitor


def reached(label: str) -> None:
    """Say that this process stands at a point; labels are ``process.what-was-just-done``."""
    _visitor(label)
