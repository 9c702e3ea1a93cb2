"""How foreign text is shown: on one line, and unable to pass for ours."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

__all__ = ["duration", "plain", "shown", "table", "wrapped"]

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


def duration(seconds: float) -> str:
    """Return a time as a person says it, in any of the languages: ``32 min``, ``2 h 40 min``."""
    minutes = max(1, round(seconds / 60))
    hours, rest = divmod(minutes, 60)
    parts = (f"{hours} h" if hours else "", f"{rest} min" if rest else "")
    return " ".join(part for part in parts if part)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a head, each column as wide as its widest cell; a dash where one is empty.

    Foreign cells must have gone through `plain`.
    """
    lines = [tuple(head), *(tuple(str(cell) or "-" for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def wrapped(text: str, width: int, *, indent: int) -> str:
    """Return text whose lines fit a terminal; what follows a broken line is indented.

    The indent keeps the rest of a foreign line from passing for a line of ours.
    """
    lines = [
        textwrap.wrap(
            line,
            max(width, 2 * indent),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
            replace_whitespace=False,
        )
        or [""]
        for line in text.splitlines()
    ]
    return "\n".join(part for parts in lines for part in parts)
