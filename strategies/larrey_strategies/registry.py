"""From a study's words to a strategy."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType

from larrey_protocol.errors import UsageError
from larrey_strategies.contract import Strategy
from larrey_strategies.fedadam import FedAdam
from larrey_strategies.fedavg import FedAvg
from larrey_strategies.fedprox import FedProx

__all__ = ["make_strategy", "names"]

_KINDS = MappingProxyType({"fedavg": FedAvg, "fedprox": FedProx, "fedadam": FedAdam})


def names() -> tuple[str, ...]:
    """Return the strategies a study may name."""
    return tuple(_KINDS)


def make_strategy(name: str, parameters: Mapping[str, float]) -> Strategy:
    """Return the strategy that a study names, with the paper's parameters.

    Raises:
        UsageError: ``unknown-strategy`` or ``unknown-parameter`` with the nearest valid name,
            ``missing-parameter``, or ``invalid-parameter`` for a value out of range.
    """
    if name not in _KINDS:
        raise UsageError("unknown-strategy", f"no strategy is called '{name}'", _near(name, _KINDS))
    kind = _KINDS[name]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in parameters:
        if key not in fields:
            text = f"strategy {name} has no parameter '{key}'"
            raise UsageError("unknown-parameter", text, _near(key, fields))
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in parameters:
            text = f"strategy {name} needs a value for '{key}'"
            raise UsageError("missing-parameter", text, f"Add {key} to [training.parameters].")
    try:
        strategy: Strategy = kind(**parameters)
    except ValueError as error:
        raise UsageError("invalid-parameter", f"strategy {name}: {error}", "Correct it.") from error
    return strategy


def _near(name: str, valid: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)
    return f"Did you mean '{near[0]}'?" if near else "Remove it; there are no parameters."
