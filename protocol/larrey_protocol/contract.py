"""The cohort contract: what a study expects of a site's table, and how rows become numbers.

Columns are declared with kind, unit and range; preprocessing comes from a closed list of steps.
Every number a step uses is written in the contract itself: nothing is ever learnt from raw rows,
because such a statistic would leave the site inside the model without being accounted for.
This module declares and checks the declaration; `larrey_client.cohort` applies it to data.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from larrey_protocol.tomlfile import Record

__all__ = ["Column", "Contract", "Step"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,60}$")]
# A statistic may come from the contract; a debited DP release will be the second source.
Source = Literal["contract"]


class Impute(Record):
    """Replace a missing number by ``value``; ``indicator`` adds a 0/1 feature that says so."""

    step: Literal["impute"]
    value: float
    indicator: bool = False
    source: Source = Field("contract", alias="from")


class Clip(Record):
    """Limit a number to [low, high]."""

    step: Literal["clip"]
    low: float
    high: float
    source: Source = Field("contract", alias="from")


class Log(Record):
    """Replace x by log(x + offset); the range must keep the argument positive."""

    step: Literal["log"]
    offset: float = Field(1.0, ge=0)


class Scale(Record):
    """Map [low, high] linearly onto [-1, 1]; values outside go beyond."""

    step: Literal["scale"]
    low: float
    high: float
    source: Source = Field("contract", alias="from")

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if not self.low < self.high:
            raise ValueError(f"scale needs low < high, not {self.low} and {self.high}")
        return self


class Bin(Record):
    """Replace a number by one 0/1 feature per interval between ``edges`` (ends open)."""

    step: Literal["bin"]
    edges: tuple[float, ...] = Field(min_length=1, max_length=100)
    source: Source = Field("contract", alias="from")

    @model_validator(mode="after")
    def _increasing(self) -> Bin:
        if any(b <= a for a, b in pairwise(self.edges)):
            raise ValueError("bin edges must increase")
        return self


class OneHot(Record):
    """One 0/1 feature for each declared value of a category; a missing value gives all zeros."""

    step: Literal["one-hot"]


Step = Annotated[Impute | Clip | Log | Scale | Bin | OneHot, Field(discriminator="step")]


class Column(Record):
    """One input variable: what it means, what values are possible, how it becomes features."""

    name: Name
    kind: Literal["number", "category"]
    unit: str = ""  # UCUM code, e.g. "mm[Hg]"
    range: tuple[float, float] | None = None
    values: tuple[str, ...] = ()
    missing_max: float = Field(1.0, ge=0, le=1)  # largest admissible share of missing cells
    missing_values: tuple[str, ...] = ()  # texts that mean "missing", beside the empty cell
    steps: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        names: list[str] = [s.step for s in self.steps]
        if self.kind == "category":
            if len(self.values) < 2:
                raise ValueError(f"category '{self.name}' needs at least two values")
            if names != ["one-hot"]:
                raise ValueError(f"category '{self.name}' needs exactly the step one-hot")
        else:
            self._check_number(names)
        return self

    def _check_number(self, names: list[str]) -> None:
        if self.range is None or not self.range[0] < self.range[1]:
            raise ValueError(f"number '{self.name}' needs range = [low, high] with low < high")
        if "one-hot" in names or self.values:
            raise ValueError(f"number '{self.name}' takes neither values nor one-hot")
        if "bin" in names[:-1]:
            raise ValueError(f"bin must be the last step of '{self.name}'")
        if "impute" in names[1:]:
            raise ValueError(f"impute must be the first step of '{self.name}'")
        if "impute" not in names and self.missing_max > 0:
            raise ValueError(f"'{self.name}' may be missing but has no impute step")

    def feature_names(self) -> tuple[str, ...]:
        """Return the names of the features this column becomes, in order."""
        if self.kind == "category":
            return tuple(f"{self.name}={value}" for value in self.values)
        last = self.steps[-1] if self.steps else None
        if isinstance(last, Bin):
            base = tuple(f"{self.name}[{i}]" for i in range(len(last.edges) + 1))
        else:
            base = (self.name,)
        first = self.steps[0] if self.steps else None
        flagged = isinstance(first, Impute) and first.indicator
        return (*base, f"{self.name}?") if flagged else base


class Unit(Record):
    """Who is protected: one identifier value at one site, and how many rows it may have."""

    name: Name = "patient"
    column: Name
    max_rows: int = Field(1, ge=1, le=64)
    min_count: int = Field(20, ge=1)  # fewer units than this and the study may not run here


class Label(Record):
    """The binary outcome: which texts mean 1, which mean 0; anything else is an error."""

    column: Name
    positive: tuple[str, ...] = Field(min_length=1)
    negative: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _disjoint(self) -> Label:
        if set(self.positive) & set(self.negative):
            raise ValueError("a label value cannot be both positive and negative")
        return self


class Rows(Record):
    """What is done to a whole row after its columns; a function of that row alone."""

    unit_norm: bool = False


class Head(Record):
    """The contract's own name and version."""

    name: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")


class Contract(Record):
    """A cohort contract, content-addressed as part of its study."""

    contract: Head
    unit: Unit
    label: Label
    columns: tuple[Column, ...] = Field(min_length=1, max_length=10_000)
    rows: Rows = Rows()

    @model_validator(mode="after")
    def _distinct(self) -> Contract:
        names = [c.name for c in self.columns] + [self.unit.column, self.label.column]
        doubles = sorted({n for n in names if names.count(n) > 1})
        if doubles:
            raise ValueError(f"column '{doubles[0]}' is declared twice")
        return self

    def feature_names(self) -> tuple[str, ...]:
        """Return the names of the model's inputs, in the order of the feature matrix."""
        return tuple(name for column in self.columns for name in column.feature_names())
