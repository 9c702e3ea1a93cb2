"""Where the shipped examples lie, in a checkout and in an installed wheel alike."""

from __future__ import annotations

import sys
from pathlib import Path

from larrey_protocol.errors import FileError

__all__ = ["example"]

_PLACES = (
    Path(__file__).parents[3] / "examples",  # a checkout
    Path(sys.prefix) / "share" / "larrey" / "examples",  # an installed wheel
)


def example(name: str) -> Path:
    """Return the folder of a shipped example.

    Raises:
        FileError: ``example-missing``.
    """
    for place in _PLACES:
        if (place / name / "study.toml").is_file():
            return place / name
    raise FileError("example-missing", f"example '{name}' is not installed", "Reinstall larrey.")
