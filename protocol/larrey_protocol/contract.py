"""The cohort contract: what a study expects of a site's table, and how rows become numbers.

Columns are declared with kind, unit and range; preprocessing comes from a closed list of steps.
Every number a step uses is written in the contract itself: nothing is ever learnt from raw rows,
because such a statistic would leave the site inside the model without being accounted for.
Every declaration is compiled to a check that runs at the site before any training; a new one is
optional and off unless written. This module declares and checks the declaration;
`larrey_client.data` applies it to data.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from larrey_protocol.labels import Label, Name, Share
from larrey_protocol.tomlfile import Record
from larrey_protocol.ucum import is_ucum

__all__ = ["Column", "Contract", "Exclusions", "Image", "Label", "Split", "Step", "Unit"]

# A statistic may come from the contract; a debited DP release will be the second source.
Source = Literal["contract"]
_MAX_PIXELS = 1 << 20  # values of one image: as wide as a first layer may reasonably be


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
    unit: str = ""  # UCUM code, e.g. "mm[Hg]"; see `larrey_protocol.ucum` for what is checked
    range: tuple[float, float] | None = None
    median_range: tuple[float, float] | None = None  # where the median of a site must lie
    values: tuple[str, ...] = ()
    missing_max: float = Field(1.0, ge=0, le=1)  # largest admissible share of missing cells
    missing_values: tuple[str, ...] = ()  # texts that mean "missing", beside the empty cell
    steps: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        names: list[str] = [s.step for s in self.steps]
        if self.unit and not is_ucum(self.unit):
            raise ValueError(f"the unit '{self.unit}' of '{self.name}' is no UCUM code")
        if self.kind == "category":
            if len(self.values) < 2:
                raise ValueError(f"category '{self.name}' needs at least two values")
            if names != ["one-hot"]:
                raise ValueError(f"category '{self.name}' needs exactly the step one-hot")
            if self.median_range is not None:
                raise ValueError(f"category '{self.name}' has no median")
        else:
            self._check_number(names)
        return self

    def _check_number(self, names: list[str]) -> None:
        if self.range is None or not self.range[0] < self.range[1]:
            raise ValueError(f"number '{self.name}' needs range = [low, high] with low < high")
        if self.median_range is not None and not self.median_range[0] <= self.median_range[1]:
            raise ValueError(f"the median_range of '{self.name}' must be [low, high]")
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
    duplicates: Literal["refuse", "allow"] = "refuse"  # two rows of a unit equal in every column


class Rows(Record):
    """What is done to a whole row after its columns; a function of that row alone."""

    unit_norm: bool = False


class Image(Record):
    """One picture a row instead of columns: PNG or NPY files beside the table that lists them.

    All have this one shape; a channel is a grey value or one of red, green, blue. The features are
    its values scaled to [0, 1], row after row, channels last. ``path`` names the column with each
    file's path below the table's folder, ``digest`` the one with its SHA-256 (64 hex digits).
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3] = 1
    path: Name = "path"
    digest: Name = "sha256"

    @model_validator(mode="after")
    def _affordable(self) -> Image:
        if self.size > _MAX_PIXELS:
            raise ValueError(f"an image has {self.size} values, at most {_MAX_PIXELS} are possible")
        return self

    @property
    def size(self) -> int:
        """Return the number of values of one image."""
        return self.height * self.width * self.channels

    def feature_names(self) -> tuple[str, ...]:
        """Return "pixel[row,column,channel]" in the order of the features."""
        places = product(range(self.height), range(self.width), range(self.channels))
        return tuple(f"pixel[{y},{x},{c}]" for y, x, c in places)


class Split(Record):
    """Shares of the units that train, validate and test; training sees its own part alone.

    A unit is wholly in one part, decided by a keyed hash of its identifier and ``salt`` with the
    site's secret: the same in every run, whatever the order of the rows.
    """

    train: Share = Field(gt=0)
    valid: Share = 0.0
    test: Share = 0.0
    salt: str = Field("", max_length=64)  # studies with equal salts split a site's units alike

    @model_validator(mode="after")
    def _whole(self) -> Split:
        if abs(self.train + self.valid + self.test - 1) > 1e-9:
            raise ValueError("train, valid and test must sum to 1")
        return self


class Exclusions(Record):
    """Whose objection counts: made before the permit's day, before each round's day, or none's."""

    opposition: Literal["permit", "round", "none"] = "permit"


class Head(Record):
    """The contract's own name and version."""

    name: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")


class Contract(Record):
    """A cohort contract, content-addressed as part of its study."""

    contract: Head
    unit: Unit
    label: Label
    columns: tuple[Column, ...] = Field((), max_length=10_000)
    image: Image | None = None
    rows: Rows = Rows()
    split: Split | None = None
    exclusions: Exclusions = Exclusions()

    @model_validator(mode="after")
    def _distinct(self) -> Contract:
        if bool(self.columns) == (self.image is not None):
            raise ValueError("a contract needs either [[columns]] or an [image]")
        if self.image is not None and self.rows.unit_norm:
            raise ValueError("unit_norm is of columns, not of an image")
        names = self.column_names()
        doubles = sorted({n for n, count in Counter(names).items() if count > 1})
        if doubles:
            raise ValueError(f"column '{doubles[0]}' is declared twice")
        return self

    def column_names(self) -> tuple[str, ...]:
        """Return every column that is read of a site's table: inputs, then unit and label."""
        files = (self.image.path, self.image.digest) if self.image else ()
        inputs = tuple(column.name for column in self.columns)
        return (*inputs, *files, self.unit.column, *self.label.columns)

    @property
    def feature_count(self) -> int:
        """Return the number of the model's inputs."""
        if self.image is not None:
            return self.image.size
        return sum(len(column.feature_names()) for column in self.columns)

    def feature_names(self) -> tuple[str, ...]:
        """Return the names of the model's inputs, in the order of the feature matrix."""
        if self.image is not None:
            return self.image.feature_names()
        return tuple(name for column in self.columns for name in column.feature_names())
