"""A rule of the contract that a table breaks, in words that stay at the site.

No violation quotes a cell, and counts come in bands, so that a person may read it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from larrey_protocol.errors import DataError

__all__ = ["Violation", "band", "unmet"]

_MOST_TOLD = 40
_BANDS = ((0, "no"), (10, "1-10"), (50, "11-50"), (200, "51-200"), (1000, "201-1000"))


@dataclass(frozen=True, slots=True)
class Violation:
    """One failing rule.

    Attributes:
        rule: its code.
        column: where it fails; empty if that is the whole table.
        what: what was found and what was expected.
    """

    rule: str
    column: str
    what: str

    def __str__(self) -> str:
        """Return the text a person reads."""
        return f"column '{self.column}': {self.what}" if self.column else self.what


def band(count: int) -> str:
    """Return a count as a band: "no", "1-10", "11-50", "51-200", "201-1000" or "over 1000"."""
    return next((text for most, text in _BANDS if count <= most), "over 1000")


def unmet(violations: Sequence[Violation], next_step: str = "") -> DataError:
    """Return the error that names every failing rule; one rule alone gives its own code."""
    rules = list(dict.fromkeys(violation.rule for violation in violations))
    step = next_step or "Correct the extract so that it follows the contract."
    if len(rules) == 1:
        told = "; ".join(str(violation) for violation in violations[:_MOST_TOLD])
    else:
        told = f"{len(rules)} rules fail: " + "; ".join(
            f"{violation.rule}: {violation}" for violation in violations[:_MOST_TOLD]
        )
    if len(violations) > _MOST_TOLD:
        told += f"; and {len(violations) - _MOST_TOLD} more"
    return DataError(rules[0] if len(rules) == 1 else "contract-unmet", told, step)
