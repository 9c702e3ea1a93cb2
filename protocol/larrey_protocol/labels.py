"""The outcome that a study's model learns: of which kind, and how cells become one number a row.

Four kinds, told by ``kind``; without it a label is binary, as in contracts older than the kinds.
All numbers and texts stand in the contract: none is learnt from rows. What each kind asks of model
and loss is in `larrey_protocol.tasks`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from larrey_protocol.tomlfile import Record
from larrey_protocol.ucum import is_ucum

__all__ = [
    "BinaryLabel",
    "ClassLabel",
    "Label",
    "Name",
    "NumberLabel",
    "OneClass",
    "Share",
    "SurvivalLabel",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,60}$")]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]{0,60}$")]
Texts = Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
_KINDS = ("binary", "class", "number", "survival")


class BinaryLabel(Record):
    """Yes or no: which texts mean 1, which mean 0; anything else is an error.

    ``prevalence_range`` bounds the share of rows that are positive. At least ``min_count`` units
    must have a positive row, and as many a negative one.
    """

    # Never written: documents from before the kinds keep their digests.
    kind: Literal["binary"] = Field("binary", exclude=True)
    column: Name
    positive: tuple[str, ...] = Field(min_length=1)
    negative: tuple[str, ...] = Field(min_length=1)
    prevalence_range: tuple[Share, Share] | None = None
    min_count: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _disjoint(self) -> BinaryLabel:
        _require_order("prevalence_range", self.prevalence_range)
        if set(self.positive) & set(self.negative):
            raise ValueError("a label value cannot be both positive and negative")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        return (self.column,)


class OneClass(Record):
    """One of several outcomes; ``share_range`` bounds the share of rows that have it."""

    name: ClassName
    texts: Texts
    share_range: tuple[Share, Share] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> OneClass:
        _require_order("share_range", self.share_range)
        return self


class ClassLabel(Record):
    """One of several classes, in the order of the model's outputs; any other text is an error.

    At least ``min_count`` units must have a row of each class.
    """

    kind: Literal["class"]
    column: Name
    classes: tuple[OneClass, ...] = Field(min_length=2, max_length=64)
    min_count: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _disjoint(self) -> ClassLabel:
        texts = [text for one in self.classes for text in one.texts]
        if len(set(texts)) < len(texts):
            raise ValueError("a text means two classes")
        if len({one.name for one in self.classes}) < len(self.classes):
            raise ValueError("two classes have one name")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        return (self.column,)


class NumberLabel(Record):
    """A number within ``range``: the model gives ``(number - center) / scale``.

    A row without it, or outside of the range, is an error. ``loss`` is squared error, or Huber's
    with its bend at one ``scale``.
    """

    kind: Literal["number"]
    column: Name
    unit: str = ""  # UCUM code
    range: Range
    center: float
    scale: float = Field(gt=0)
    median_range: Range | None = None  # where the median of a site must lie
    loss: Literal["squared", "huber"] = "squared"

    @model_validator(mode="after")
    def _consistent(self) -> NumberLabel:
        _require_unit(self.unit, self.column)
        low, high = self.range
        if not low < high or not low <= self.center <= high:
            raise ValueError("a number needs range = [low, high] with low < high around its center")
        if not max(high - self.center, self.center - low) / self.scale < 1e6:
            raise ValueError(f"scale {self.scale:g} is too small for the range")
        _require_order("median_range", self.median_range)
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        return (self.column,)


class SurvivalLabel(Record):
    """Time until an event or until the last news, in the intervals that ``edges`` end.

    Interval j goes from edge j-1 (the first from 0) up to, not including, edge j. An event counts
    in its interval. Somebody last seen without it counts as having lived through each interval
    whose middle was reached (Gensheimer and Narasimhan 2019, https://peerj.com/articles/6257/);
    from the last edge on nothing counts any more. At least ``min_count`` units must have an event
    before the last edge, and as many none; ``event_range`` bounds the share of rows with one.
    """

    kind: Literal["survival"]
    time: Name
    event: Name
    events: Texts
    censored: Texts
    unit: str = ""  # UCUM code of time
    edges: tuple[float, ...] = Field(min_length=1, max_length=100)
    event_range: tuple[Share, Share] | None = None
    median_range: Range | None = None  # where the median time of a site must lie
    min_count: int = Field(0, ge=0)
    # Cox's partial likelihood is known, so that it is refused with the reason.
    loss: Literal["discrete-time", "cox"] = "discrete-time"

    @model_validator(mode="after")
    def _consistent(self) -> SurvivalLabel:
        _require_unit(self.unit, self.time)
        if any(after <= before for before, after in pairwise((0.0, *self.edges))):
            raise ValueError("edges must increase, the first above 0")
        _require_order("event_range", self.event_range)
        _require_order("median_range", self.median_range)
        if set(self.events) & set(self.censored):
            raise ValueError("a text cannot mean both event and censored")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read: time, then event."""
        return (self.time, self.event)

    @property
    def range(self) -> Range:
        """Return the times that are possible."""
        return (0.0, math.inf)


def _kind(label: Any) -> str:  # Any: foreign input, or a label
    """Return the kind; a label without one is binary."""
    told = label.get("kind", "binary") if isinstance(label, dict) else getattr(label, "kind", "")
    return str(told)


Label = Annotated[
    Annotated[BinaryLabel, Tag("binary")]
    | Annotated[ClassLabel, Tag("class")]
    | Annotated[NumberLabel, Tag("number")]
    | Annotated[SurvivalLabel, Tag("survival")],
    Discriminator(
        _kind,
        custom_error_type="label_kind",
        custom_error_message=f"a label's kind is one of {', '.join(_KINDS)}",
    ),
]


def _require_order(name: str, bounds: Range | None) -> None:
    if bounds is not None and not bounds[0] <= bounds[1]:
        raise ValueError(f"{name} must be [low, high]")


def _require_unit(unit: str, column: str) -> None:
    if unit and not is_ucum(unit):
        raise ValueError(f"the unit '{unit}' of '{column}' is no UCUM code")
