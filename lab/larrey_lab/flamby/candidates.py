"""The settings of Larrey that are tried, all of them words that a study or contract may say.

Fixed before any test row was scored: the same list for both benchmarks, within the benchmark's own
rounds and 100 local steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from larrey_lab.flamby.data import Scaling
from larrey_lab.flamby.protocol import Setting
from larrey_strategies.registry import AlgorithmWords

__all__ = ["Candidate", "candidates"]

_RATES = (0.003, 0.01, 0.03, 0.1)
_SERVER_RATES = (0.03, 0.1, 0.3)
_PULLS = (0.1, 1.0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A setting, and how features are scaled before it."""

    scaling: Scaling
    setting: Setting

    def __str__(self) -> str:
        """Return e.g. ``fedadam eta=0.1, rate 0.03, whole sites, scaling contract``."""
        words, setting = self.setting.algorithm, self.setting
        rows = f"batches of {setting.batch}" if setting.batch else "whole sites"
        name = " ".join([words.strategy, *(f"{k}={v:g}" for k, v in words.parameters.items())])
        momentum = f", momentum {setting.momentum:g}" if setting.momentum else ""
        return f"{name}, rate {setting.rate:g}{momentum}, {rows}, scaling {self.scaling}"


def candidates(scalings: tuple[Scaling, ...], batch: int) -> tuple[Candidate, ...]:
    """Return what is tried, with mini-batches of ``batch`` rows and with whole sites."""
    settings = _settings((batch, 0))
    return tuple(Candidate(scaling, setting) for scaling in scalings for setting in settings)


def _settings(sizes: tuple[int, ...]) -> tuple[Setting, ...]:
    averaging = AlgorithmWords("fedavg", {})
    scaffold = AlgorithmWords("scaffold", {"eta_g": 1.0})
    proximal = [AlgorithmWords("fedprox", {"mu": mu}) for mu in _PULLS]
    adaptive = [
        AlgorithmWords(name, {"eta": eta})
        for name, eta in product(("fedadam", "fedyogi"), _SERVER_RATES)
    ]
    plain = product((averaging, scaffold, *proximal, *adaptive), _RATES, sizes)
    heavy = product((averaging,), _RATES, sizes)
    return (
        *(Setting(words, rate, size) for words, rate, size in plain),
        *(Setting(words, rate, size, momentum=0.9) for words, rate, size in heavy),
    )
