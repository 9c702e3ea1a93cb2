"""A study's committed state as the journal keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from larrey_server.round_values import Cell, Plan, Reply, State

__all__ = ["restore", "snapshot"]


def snapshot(state: State) -> dict[str, Any]:  # Any: JSON
    """Return a committed state as JSON; the plan is not part of it, it follows from the study."""
    table = asdict(state)
    del table["plan"]
    return table


def restore(plan: Plan, table: Mapping[str, Any]) -> State:  # Any: JSON
    """Return the state of a `snapshot`."""
    lists = {key: tuple(table[key]) for key in ("joined", "pending", "missed")}
    replies = tuple(Reply(**row) for row in table["replies"])
    cells = tuple(Cell(**row) for row in table["cells"])
    pace = {
        site: {phase: tuple((work, move) for work, move in rows) for phase, rows in phases.items()}
        for site, phases in table["pace"].items()
    }
    asked = {site: (number, at) for site, (number, at) in table.get("last_asked", {}).items()}
    rows = {"replies": replies, "cells": cells, "pace": pace, "last_asked": asked}
    return State(plan, **{**table, **lists, **rows})
