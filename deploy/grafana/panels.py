"""What boards are made of: rows of panels, and the queries of each. `make.py` makes JSON of it."""

from typing import NamedTuple

__all__ = ["DAY_S", "Board", "Panel", "Row", "lines", "quantile", "stat", "table"]

DAY_S = "86400"


class Panel(NamedTuple):
    """One picture: a number (``stat``), ``lines`` over time, or a ``table`` of what is now."""

    title: str
    kind: str
    unit: str  # Grafana's name of it
    queries: tuple[tuple[str, str], ...]  # with the legend of each
    meaning: str
    bad_above: float | None = None


class Row(NamedTuple):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Board(NamedTuple):
    """A dashboard; its variables are names with Grafana's query for their values."""

    uid: str
    title: str
    description: str
    variables: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]


def stat(
    title: str,
    unit: str,
    query: str,
    meaning: str,
    bad_above: float | None = None,
    legend: str = "",
) -> Panel:
    """Return a number, red from ``bad_above`` on."""
    return Panel(title, "stat", unit, ((query, legend),), meaning, bad_above)


def lines(title: str, unit: str, meaning: str, *queries: tuple[str, str]) -> Panel:
    """Return lines over time."""
    return Panel(title, "lines", unit, queries, meaning)


def table(title: str, unit: str, meaning: str, *queries: tuple[str, str]) -> Panel:
    """Return a table of what is now."""
    return Panel(title, "table", unit, queries, meaning)


def quantile(share: float, family: str, by: str, window: str) -> str:
    """Return the query of a quantile of a histogram, by labels."""
    buckets = f"sum by (le, {by}) (rate({family}[{window}]))"
    return f"histogram_quantile({share}, {buckets})"
