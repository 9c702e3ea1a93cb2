"""From a study's words to an algorithm; the one list of presets and parts.

A preset names the paper that proposed the combination; a study may put another part in the place
of each. What may be combined at all is `larrey_strategies.combinations`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from larrey_protocol.errors import UsageError
from larrey_strategies.algorithm import Algorithm
from larrey_strategies.centered_clipping import CenteredClipping
from larrey_strategies.contract import (
    Aggregator,
    LocalObjective,
    ServerOptimizer,
)
from larrey_strategies.fedavg import FedAvg, Plain
from larrey_strategies.fedavgm import FedAvgM
from larrey_strategies.feddyn import FedDyn
from larrey_strategies.fednova import FedNova
from larrey_strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from larrey_strategies.fedprox import FedProx
from larrey_strategies.geometric_median import GeometricMedian
from larrey_strategies.krum import Krum, MultiKrum
from larrey_strategies.mean import Mean
from larrey_strategies.median import Median
from larrey_strategies.mr_mtl import MrMtl
from larrey_strategies.norm_bounding import NormBounding
from larrey_strategies.scaffold import Scaffold
from larrey_strategies.trimmed_mean import TrimmedMean

__all__ = [
    "AGGREGATORS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "PRESETS",
    "Algorithm",
    "AlgorithmWords",
    "Preset",
    "make_algorithm",
    "names",
    "word_of",
    "words_of",
]

OBJECTIVES: Mapping[str, type[LocalObjective]] = MappingProxyType(
    {
        "plain": Plain,
        "fedprox": FedProx,
        "scaffold": Scaffold,
        "feddyn": FedDyn,
        "mr-mtl": MrMtl,
    }
)
AGGREGATORS: Mapping[str, type[Aggregator]] = MappingProxyType(
    {
        "mean": Mean,
        "median": Median,
        "trimmed-mean": TrimmedMean,
        "krum": Krum,
        "multi-krum": MultiKrum,
        "geometric-median": GeometricMedian,
        "centered-clipping": CenteredClipping,
        "norm-bounding": NormBounding,
    }
)
OPTIMIZERS: Mapping[str, type[ServerOptimizer]] = MappingProxyType(
    {
        "fedavg": FedAvg,
        "fedavgm": FedAvgM,
        "fedadagrad": FedAdagrad,
        "fedadam": FedAdam,
        "fedyogi": FedYogi,
        "fednova": FedNova,
        "scaffold": Scaffold,
        "feddyn": FedDyn,
        "mr-mtl": MrMtl,
    }
)


@dataclass(frozen=True, slots=True)
class Preset:
    """The parts that a paper combines, by name."""

    objective: str = "plain"
    aggregator: str = "mean"
    optimizer: str = "fedavg"


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "fedavg": Preset(),
        "fedprox": Preset(objective="fedprox"),
        "scaffold": Preset(objective="scaffold", optimizer="scaffold"),
        "feddyn": Preset(objective="feddyn", optimizer="feddyn"),
        "mr-mtl": Preset(objective="mr-mtl", optimizer="mr-mtl"),
    }
    | {name: Preset(optimizer=name) for name in OPTIMIZERS if name not in OBJECTIVES}
    | {name: Preset(aggregator=name) for name in AGGREGATORS if name != "mean"}
)


@dataclass(frozen=True, slots=True)
class AlgorithmWords:
    """What a study says of its algorithm; an empty override leaves the preset's part."""

    strategy: str = "fedavg"
    parameters: Mapping[str, float] = field(default_factory=dict)
    objective: str = ""
    aggregator: str = ""
    optimizer: str = ""
    aggregator_parameters: Mapping[str, float] = field(default_factory=dict)

    def parts(self) -> Preset:
        """Return the names of the three parts.

        Raises:
            UsageError: ``unknown-strategy`` with the nearest valid name.
        """
        preset = PRESETS[_known("strategy", self.strategy, PRESETS)]
        return Preset(
            _known("objective", self.objective or preset.objective, OBJECTIVES),
            _known("aggregator", self.aggregator or preset.aggregator, AGGREGATORS),
            _known("optimizer", self.optimizer or preset.optimizer, OPTIMIZERS),
        )


class _Training(Protocol):
    """The table ``[training]`` of a study file, as far as an algorithm is concerned."""

    @property
    def strategy(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, float]: ...

    @property
    def objective(self) -> str: ...

    @property
    def aggregator(self) -> str: ...

    @property
    def optimizer(self) -> str: ...

    @property
    def aggregator_parameters(self) -> Mapping[str, float]: ...


def words_of(training: _Training) -> AlgorithmWords:
    """Return a study's words, from its table ``[training]``."""
    return AlgorithmWords(
        training.strategy,
        training.parameters,
        training.objective,
        training.aggregator,
        training.optimizer,
        training.aggregator_parameters,
    )


def word_of(field_name: str) -> str:
    """Return a field's name in a study: ``lambda_`` is ``lambda``, a word of Python's own."""
    return field_name.removesuffix("_")


def names() -> tuple[str, ...]:
    """Return the strategies a study may name."""
    return tuple(PRESETS)


def make_algorithm(words: AlgorithmWords) -> Algorithm:
    """Return the algorithm that a study names, with the papers' parameters.

    A parameter goes to every part that has a field of its name: objective and optimizer, and the
    aggregator where the preset chose it and neither of the two has that name.

    Raises:
        UsageError: ``unknown-strategy`` or ``unknown-parameter`` with the nearest valid name,
            ``missing-parameter``, ``invalid-parameter`` for a value out of range, or
            ``parts-mismatch`` for half of a paper's algorithm with another's.
    """
    parts = words.parts()
    _require_halves(parts)
    objective, optimizer = OBJECTIVES[parts.objective], OPTIMIZERS[parts.optimizer]
    aggregator = AGGREGATORS[parts.aggregator]
    common = _fields(objective) | _fields(optimizer)
    own = set() if words.aggregator else _fields(aggregator) - common
    _require_known(words.strategy, words.parameters, common | own)
    _require_known(parts.aggregator, words.aggregator_parameters, _fields(aggregator))
    for_aggregator = {key: words.parameters[key] for key in own & words.parameters.keys()}
    return Algorithm(
        _made(parts.objective, objective, words.parameters),
        _made(
            parts.aggregator,
            aggregator,
            for_aggregator | dict(words.aggregator_parameters),
            table="training.parameters" if own else "training.aggregator_parameters",
        ),
        _made(parts.optimizer, optimizer, words.parameters),
    )


def _require_halves(parts: Preset) -> None:
    """Refuse half an algorithm: a site's state and the server's are of one paper or of none."""
    both = OBJECTIVES.keys() & OPTIMIZERS.keys()
    if parts.objective == parts.optimizer or not both & {parts.objective, parts.optimizer}:
        return
    half = parts.objective if parts.objective in both else parts.optimizer
    raise UsageError(
        "parts-mismatch",
        f"objective '{parts.objective}' and optimizer '{parts.optimizer}' do not keep each other's"
        f" state: {half} is an algorithm of two halves",
        f"Take '{half}' for both, or for none.",
    )


_Part = TypeVar("_Part")


def _made(
    name: str,
    kind: type[_Part],
    values: Mapping[str, float],
    *,
    table: str = "training.parameters",
) -> _Part:
    """Return a part with those of the values that it has a field for."""
    known = {word_of(each.name): each for each in dataclasses.fields(_dataclass(kind))}
    for key, each in known.items():
        if each.default is dataclasses.MISSING and key not in values:
            text = f"{name} needs a value for '{key}'"
            raise UsageError("missing-parameter", text, f"Add {key} to [{table}].")
    try:
        return kind(**{known[key].name: value for key, value in values.items() if key in known})
    except ValueError as error:
        raise UsageError("invalid-parameter", f"{name}: {error}", "Correct it.") from error


def _require_known(name: str, values: Collection[str], valid: Collection[str]) -> None:
    for key in values:
        if key not in valid:
            text = f"{name} has no parameter '{key}'"
            raise UsageError("unknown-parameter", text, _near(key, valid))


def _known(what: str, name: str, valid: Collection[str]) -> str:
    if name not in valid:
        raise UsageError("unknown-strategy", f"no {what} is called '{name}'", _near(name, valid))
    return name


def _near(name: str, valid: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.0)
    return f"Did you mean '{near[0]}'?" if near else "Remove it; there are no parameters."


def _fields(kind: type) -> set[str]:
    return {word_of(each.name) for each in dataclasses.fields(_dataclass(kind))}


def _dataclass(kind: type) -> Any:  # Any: a Protocol cannot say that its classes are dataclasses
    return kind
