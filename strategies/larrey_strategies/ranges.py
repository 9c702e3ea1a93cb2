"""Ranges of hyper-parameters: part of a field's type, checked when a value is made.

A field says ``Annotated[float, POSITIVE, "what it is"]``; the reference page reads the same words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "FRACTION",
    "HALF",
    "ITERATIONS",
    "NOT_NEGATIVE",
    "POSITIVE",
    "SITES",
    "Range",
    "require_ranges",
]


@dataclass(frozen=True, slots=True)
class Range:
    """Finite numbers from ``low`` to ``high``; an end may be left out."""

    low: float
    high: float = math.inf
    low_is_in: bool = True
    high_is_in: bool = False

    def __contains__(self, value: float) -> bool:
        """Return whether the number is inside; NaN and infinities never are."""
        above = value >= self.low if self.low_is_in else value > self.low
        below = value <= self.high if self.high_is_in else value < self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        """Return the mathematical form, such as ``[0, 1)``."""
        left, right = "[" if self.low_is_in else "(", "]" if self.high_is_in else ")"
        return f"{left}{self.low:g}, {self.high:g}{right}"


POSITIVE = Range(0, low_is_in=False)
NOT_NEGATIVE = Range(0)
FRACTION = Range(0, 1)  # of one, one itself left out
HALF = Range(0, 0.5)
SITES = Range(0, 1000, high_is_in=True)  # a study invites at most 1000
ITERATIONS = Range(1, 1000, high_is_in=True)  # each costs sites^2 operations, or sites


def require_ranges(part: DataclassInstance) -> None:
    """Check every field that names a range.

    Raises:
        ValueError: a value is outside, not a number, or not whole where the type is.
    """
    hints = get_type_hints(type(part), include_extras=True)
    for field in fields(part):
        value, hint = getattr(part, field.name), hints[field.name]
        name = field.name.removesuffix("_")  # of Python's own words
        for allowed in getattr(hint, "__metadata__", ()):
            if isinstance(allowed, Range) and value not in allowed:
                raise ValueError(f"{name} must be in {allowed}, found {value:g}")
        if getattr(hint, "__origin__", float) is int and not float(value).is_integer():
            raise ValueError(f"{name} must be a whole number, found {value:g}")
