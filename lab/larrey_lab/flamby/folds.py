"""Cross-validation inside the training split: five folds a site, drawn anew for each seed.

Nothing here sees a test row. Every method that is tuned is tuned on the same folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from larrey_lab.flamby.data import Site
from larrey_lab.flamby.protocol import LOCAL_STEPS, Setting, batches, scores, start_of, train
from larrey_lab.flamby.tasks import Array, Binary, Task

__all__ = ["FOLDS", "Fold", "criterion", "folds_of", "streams_of", "validated"]

FOLDS = 5
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One replication: who of each site trains and who is held out, both of the training split."""

    seed: int
    number: int
    train: tuple[Index, ...]
    held_out: tuple[Index, ...]

    def sites(self, sites: Sequence[Site]) -> tuple[Site, ...]:
        """Return the sites as if the held-out patients were their test set."""
        return tuple(
            Site(site.name, site.train.rows(kept), site.train.rows(out))
            for site, kept, out in zip(sites, self.train, self.held_out, strict=True)
        )


def criterion(task: Task, sites: Sequence[Site], found: list[Array]) -> float:
    """Return what a setting is chosen by: the figure that the benchmark is judged by."""
    part = tuple(sites)
    return task.average(part, found) if isinstance(task, Binary) else task.pooled(part, found)


def folds_of(sites: Sequence[Site], seeds: Sequence[int]) -> tuple[Fold, ...]:
    """Return five folds a seed; label or event is spread evenly over the folds of a site."""
    folds = []
    for seed in seeds:
        numbers = [_numbers(site.train.y[:, 0], seed, i) for i, site in enumerate(sites)]
        for fold in range(FOLDS):
            kept = tuple(np.flatnonzero(number != fold) for number in numbers)
            out = tuple(np.flatnonzero(number == fold) for number in numbers)
            folds.append(Fold(seed, fold, kept, out))
    return tuple(folds)


def validated(task: Task, sites: Sequence[Site], setting: Setting, folds: Sequence[Fold]) -> float:
    """Return the mean over all folds of the criterion on the held-out training patients."""
    start = np.stack([start_of(fold.seed, sites[0].train.x.shape[1]) for fold in folds])
    kept = [[fold.train[i] for fold in folds] for i in range(len(sites))]
    streams = streams_of(task, setting, kept, [(fold.seed, fold.number) for fold in folds])
    models = train(task, setting, [site.train for site in sites], streams, start)
    return float(
        np.mean(
            [
                criterion(task, part, scores(model, part))
                for model, part in zip(models, [f.sites(sites) for f in folds], strict=True)
            ]
        )
    )


def streams_of(
    task: Task, setting: Setting, kept: Sequence[Sequence[Index]], keys: Sequence[tuple[int, ...]]
) -> list[Index]:
    """Return each site's batches for all replications.

    Args:
        task: whose rounds.
        setting: whose batch; 0 stands for the largest number of rows of the site.
        kept: the rows that train, by site and replication.
        keys: what the random numbers of a replication come from.
    """
    steps = task.rounds * LOCAL_STEPS
    streams = []
    for i, rows in enumerate(kept):
        size = setting.batch or max(len(r) for r in rows)
        draws = [
            batches(r, size=size, steps=steps, random=np.random.default_rng([*key, i]))
            for r, key in zip(rows, keys, strict=True)
        ]
        streams.append(np.stack(draws))
    return streams


def _numbers(label: Array, seed: int, site: int) -> Index:
    """Return each row's fold: rows shuffled within each class, then dealt in turn."""
    random = np.random.default_rng([seed, site])
    order = np.lexsort((random.random(len(label)), label))
    numbers = np.empty(len(label), np.int64)
    numbers[order] = np.arange(len(label)) % FOLDS
    return numbers
