"""How foreign text is shown: on one line, and unable to pass for ours."""

from __future__ import annotations

from typing import Any

__all__ = ["plain", "shown"]

_LONGEST = 2000


def plain(text: str) -> str:
    """Return foreign text on one line, without what could forge or hide another line."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:_LONGEST]


def shown(value: Any) -> str:  # Any: a JSON value
    """Return a foreign JSON value as text; a dash where there is none."""
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, list):
        return plain(", ".join(map(str, value)))
    return plain(str(value))
