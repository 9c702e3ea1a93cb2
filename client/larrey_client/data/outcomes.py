"""From the label's cells to one float32 a row, and what the contract's checks need to know of it.

Pure functions of parsed cells. Nothing fails here: what cannot be read is marked, and a check says
so. `larrey_protocol.labels` declares the kinds, `larrey_protocol.tasks` says how they travel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.contract import Contract

if TYPE_CHECKING:
    from larrey_client.data.cells import Numbers

__all__ = ["Group", "Labels", "Unread", "outcomes"]

Flags = NDArray[np.bool_]
IsIn = Callable[[str, Sequence[str]], Flags]
ReadNumbers = Callable[[str], "Numbers"]


class Group(NamedTuple):
    """Rows of one outcome.

    Attributes:
        name: short, for a count: "positive", a class, "event".
        words: what such a row has: "a positive outcome".
        rows: which they are.
        share: of all readable rows that the contract asks for, if it does.
    """

    name: str
    words: str
    rows: Flags
    share: tuple[float, float] | None = None


class Unread(NamedTuple):
    """Rows whose cell of a column is no outcome, and what it should be."""

    column: str
    rows: Flags
    words: str


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The outcome of each row.

    Attributes:
        value: as it travels, "(rows,)" float32; of no meaning where a cell was not read.
        groups: of rows, where the kind has any.
        unread: by column.
        numbers: the cells of its column of numbers, of the kinds that have one.
    """

    value: NDArray[np.float32]
    groups: tuple[Group, ...]
    unread: tuple[Unread, ...]
    numbers: Numbers | None = None


def outcomes(contract: Contract, is_in: IsIn, numbers: ReadNumbers) -> Labels:
    """Return the outcomes of a table.

    Args:
        contract: of the study.
        is_in: tells which cells of a column are one of some texts.
        numbers: parses a column of numbers.
    """
    label = contract.label
    match label.kind:
        case "binary":
            yes, no = is_in(label.column, label.positive), is_in(label.column, label.negative)
            sides = (
                Group("positive", "a positive outcome", yes, label.prevalence_range),
                Group("negative", "a negative outcome", no),
            )
            words = "a value that is neither positive nor negative"
            return _of_groups(sides, label.column, words, yes)
        case "class":
            groups = tuple(
                Group(c.name, f"the class '{c.name}'", is_in(label.column, c.texts), c.share_range)
                for c in label.classes
            )
            index = sum(place * group.rows for place, group in enumerate(groups))
            return _of_groups(groups, label.column, "a value of no class", np.asarray(index))
        case "number":
            cells = numbers(label.column)
            value = (cells.values - label.center) / label.scale
            return Labels(_single(value), (), _unread(label.column, cells), cells)
        case "survival":
            cells = numbers(label.time)
            event, lost = is_in(label.event, label.events), is_in(label.event, label.censored)
            lived, counts = _lived(cells.values, event, label.edges)
            words = "a value that means neither event nor censored"
            return Labels(
                _single(2 * lived + counts),
                (
                    Group("event", "an event before the last edge", counts, label.event_range),
                    Group("no_event", "no event before the last edge", (event | lost) & ~counts),
                ),
                (
                    *_unread(label.time, cells),
                    Unread(label.event, ~(event | lost), words),
                ),
                cells,
            )


def _lived(
    times: NDArray[np.float64], event: Flags, edges: Sequence[float]
) -> tuple[NDArray[np.int64], Flags]:
    """Return how many intervals each row lived through, and whether it has its event in the next.

    The conventions are those of `larrey_protocol.labels.SurvivalLabel`.
    """
    ends = np.asarray(edges)
    middles = (np.r_[0.0, ends[:-1]] + ends) / 2
    until_event = np.searchsorted(ends, times, side="right")
    until_lost = np.searchsorted(middles, times, side="right")
    counts = event & (until_event < len(ends))
    return np.where(event, until_event, until_lost), counts


def _of_groups(
    groups: tuple[Group, ...], column: str, words: str, value: NDArray[np.generic]
) -> Labels:
    known = np.any([group.rows for group in groups], axis=0)
    return Labels(_single(value), groups, (Unread(column, ~known, words),))


def _unread(column: str, cells: Numbers) -> tuple[Unread, ...]:
    return (Unread(column, cells.is_missing | cells.is_wrong, "no decimal number"),)


def _single(value: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)
