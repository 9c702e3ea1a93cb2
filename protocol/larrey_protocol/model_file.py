"""The ``[model]`` of a study: which family of networks, and what its members differ in.

Each kind says what it needs and nothing more; `larrey_protocol.models` derives the tensors from it,
`larrey_client.networks` the torch module.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from larrey_protocol.tomlfile import Record

__all__ = ["Dense", "Model", "Packaged", "Tensor"]

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # of the public initial values; never reaches noise
Width = Annotated[int, Field(ge=1, le=4096)]


class Dense(Record):
    """A linear model, or a multi-layer perceptron with rectifiers."""

    name: Literal["logistic", "mlp"]
    hidden: tuple[Width, ...] = Field((), max_length=64)
    seed: Seed = 0

    @model_validator(mode="after")
    def _hidden_fits(self) -> Dense:
        if (self.name == "mlp") != bool(self.hidden):
            raise ValueError("hidden = [...] belongs to model mlp and only to it")
        return self


class Tensor(Record):
    """One parameter of a packaged model, as the package's build function gives it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.]{0,127}$")
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 24)], ...] = Field((), max_length=8)


class Packaged(Record):
    """A model from a wheel that each site's administrator installed, pinned by digest.

    The wheel's code runs at sites alone; the coordinator knows the tensors that it declares.
    """

    name: Literal["package"]
    package: str = Field(pattern=r"^[a-z][a-z0-9-]{1,60}$")  # name of its entry point
    wheel: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    parameters: dict[str, bool | int | float | str] = Field(default_factory=dict, max_length=64)
    tensors: tuple[Tensor, ...] = Field(min_length=1, max_length=4096)
    seed: Seed = 0

    @model_validator(mode="after")
    def _distinct(self) -> Packaged:
        if len({tensor.name for tensor in self.tensors}) < len(self.tensors):
            raise ValueError("a tensor is listed twice")
        return self


Model = Annotated[Dense | Packaged, Field(discriminator="name")]
