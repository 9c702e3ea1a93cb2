"""FLamby's tables reproduced with Larrey's strategies, and beaten within the same rounds.

    python -m bench.flamby [--tcga FOLDER] [--quick]

FOLDER (or LARREY_TCGA_BRCA, else shared/data/tcga_brca here or beside the repository) holds
FLamby's ``brca.csv`` and ``train_test_split.csv``; without it only heart is measured, and said so.
``--quick`` tries few settings and writes no file. docs/flamby.md explains each figure.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.harness import RESULTS, Figure, finish
from larrey_lab.evaluation import Interval
from larrey_lab.flamby.benchmarks import Benchmark, Sites, heart, tcga
from larrey_lab.flamby.candidates import Candidate, candidates
from larrey_lab.flamby.folds import folds_of
from larrey_lab.flamby.intervals import average_accuracy, draws_of, interval, pooled_concordance
from larrey_lab.flamby.measure import (
    Best,
    Reproduced,
    best,
    central_model,
    reproduced,
    trained,
    validated_all,
)
from larrey_lab.flamby.published import SEEDS, Row
from larrey_lab.flamby.spent import spent
from larrey_lab.flamby.tasks import Array
from larrey_protocol.errors import FileError

_ROOT = Path(__file__).parent.parent
_CLAIMED, _DELTA = 1.0, 1e-4  # the published row that is looked at closely
_QUICK_STEP = 11  # every eleventh candidate

Numbers: TypeAlias = NDArray[np.float64]
Values: TypeAlias = dict[str, Numbers]


@dataclass(frozen=True, slots=True, eq=False)
class Arms:
    """Who is compared: the chosen setting, the one bound to the protocol's scaling, central."""

    best: Best
    bound: Best
    central: Array

    def scored(self, one: Benchmark, row: Row, score: Callable[[Array, Sites], Numbers]) -> Values:
        """Return the draws of each arm and of a published row under the identical protocol."""
        theirs = trained(one.task, one.sites, row.setting, SEEDS)
        return {
            "best": score(self.best.models, one.tables[self.best.candidate.scaling]),
            "bound": score(self.bound.models, one.tables[self.bound.candidate.scaling]),
            "central": score(self.central[None], one.tables["pooled"]),
            "theirs": score(theirs, one.sites),
        }


def main() -> int:
    options = _options()
    start = time.perf_counter()
    try:
        benchmarks = {"heart": heart()} | _tcga(options.tcga)
    except FileError as error:
        print(error, file=sys.stderr)
        return 2
    figures: list[Figure] = []
    notes: list[str] = []
    rows = {
        name: [reproduced(one, row, SEEDS) for row in one.rows] for name, one in benchmarks.items()
    }
    figures += _gaps([row for group in rows.values() for row in group])
    for name, one in benchmarks.items():
        found, said = _best(name, one, is_quick=options.quick)
        figures += found
        notes += [_table(name, one, rows[name]), *said]
    figures += _row_figures(rows)
    found, said = _privacy(benchmarks["heart"])
    figures += found
    notes += [*said, *_FLAWS]
    if "tcga" not in benchmarks:
        notes.append("Fed-TCGA-BRCA was not found and not measured: name its folder with --tcga.")
    notes.append(f"{time.perf_counter() - start:.0f} s.")
    if options.quick:
        print("\n".join([*notes, "", *(f"{f.name} {f.value:.4g} {f.count}" for f in figures)]))
        return 0
    return finish("flamby", "make bench-flamby", figures, notes=notes, folder=RESULTS)


def _gaps(rows: list[Reproduced]) -> list[Figure]:
    widest = max(rows, key=lambda row: abs(row.gap))
    loudest = max(rows, key=lambda row: abs(row.gap) / row.noise)
    count = f"{len(rows)} published rows, {widest.seeds} seeds"
    return [
        Figure("identical_protocol_largest_gap", abs(widest.gap), "of a mean", count=count),
        Figure(
            "identical_protocol_largest_gap_over_seed_noise",
            abs(loudest.gap) / loudest.noise,
            "standard errors",
            "<=",
            2.0,
            count=count,
        ),
    ]


def _row_figures(rows: dict[str, list[Reproduced]]) -> list[Figure]:
    unit = {"heart": "accuracy", "tcga": "C-index"}
    return [
        Figure(
            f"{name}_{one.row.method.lower()}_average",
            one.average,
            unit[name],
            count=f"{one.seeds} seeds, sd {one.spread:.3f}; published {one.row.average:.3f}",
        )
        for name, group in rows.items()
        for one in group
    ]


def _best(name: str, one: Benchmark, *, is_quick: bool) -> tuple[list[Figure], list[str]]:
    folds = folds_of(one.sites, SEEDS)
    tried = candidates(one.own, one.task.batch)[:: _QUICK_STEP if is_quick else 1]
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        values = validated_all(one, tried, folds, over=pool.map)
    ours = best(one, tried, values, seeds=SEEDS)
    is_bound = [c.scaling == one.protocol for c in tried]
    bound = best(one, *_only(tried, values, is_bound), seeds=SEEDS)
    penalty, central = central_model(one, folds)
    notes = [
        f"{name}: {ours.tried} settings tried inside the training split ({len(folds)} folds).",
        f"{name}: chosen: {ours.candidate}; {ours.validated:.3f} in cross-validation.",
        f"{name}: of the protocol's own scaling: {bound.candidate}; {bound.validated:.3f} there.",
        f"{name}: central is ridge regression, scaled with pooled training statistics.",
        f"{name}: its penalty is {penalty:.2g} by the same folds.",
    ]
    arms = Arms(ours, bound, central)
    figures = _heart(one, arms) if name == "heart" else _survival(one, arms)
    return [*figures, Figure(f"{name}_settings_tried", ours.tried)], notes


def _only(
    tried: tuple[Candidate, ...], values: list[float], is_kept: list[bool]
) -> tuple[list[Candidate], list[float]]:
    return list(compress(tried, is_kept)), list(compress(values, is_kept))


def _heart(one: Benchmark, arms: Arms) -> list[Figure]:
    draws = draws_of(one.sites)
    row = max(one.rows, key=lambda row: row.average)
    values = arms.scored(one, row, lambda models, sites: average_accuracy(models, sites, draws))
    count = f"{len(SEEDS)} seeds, {sum(len(s.test) for s in one.sites)} test patients"
    return _compared(("heart", "average_accuracy"), values, count, 0.78)


def _survival(one: Benchmark, arms: Arms) -> list[Figure]:
    draws = draws_of(one.sites)
    row = max(one.rows, key=lambda row: row.pooled)
    values = arms.scored(one, row, lambda models, sites: pooled_concordance(models, sites, draws))
    events = sum(int(site.test.y[:, 0].sum()) for site in one.sites)
    patients = sum(len(site.test) for site in one.sites)
    count = f"{len(SEEDS)} seeds, {patients} test patients, {events} events"
    return _compared(("tcga", "pooled_cindex"), values, count, 0.843)


def _compared(names: tuple[str, str], values: Values, count: str, target: float) -> list[Figure]:
    name, metric = names
    mine, bound, central, theirs = (values[arm] for arm in ("best", "bound", "central", "theirs"))
    return [
        _figure(f"{name}_best_{metric}", interval(mine), count, target),
        _figure(f"{name}_best_gain_over_published_best", interval(mine - theirs), count),
        _figure(f"{name}_best_less_central", interval(mine - central), count),
        _figure(f"{name}_central_{metric}", interval(central), count),
        _figure(f"{name}_best_{metric}_with_protocol_scaling", interval(bound), count),
    ]


def _figure(name: str, found: Interval, count: str, target: float | None = None) -> Figure:
    pair = (found.low, found.high)
    return Figure(name, found.value, "", ">=" if target else "", target, pair, count)


def _privacy(one: Benchmark) -> tuple[list[Figure], list[str]]:
    sites = spent(one.sites, claimed=_CLAIMED, delta=_DELTA)
    worst = max(sites, key=lambda site: site.epsilon)
    note = (
        f"Published DP on heart at epsilon {_CLAIMED:g}, delta {_DELTA:g}, really spent (PLD): "
        + ", ".join(
            f"{s.site} {s.epsilon:.2f} (sigma {s.noise:.2f} for {s.steps_calibrated} of"
            f" {s.steps_run} steps; {s.epsilon_shuffled:.1f} for batches that are only shuffled)"
            for s in sites
        )
    )
    count = f"highest of {len(sites)} sites ({worst.site}), published as {_CLAIMED:g}"
    return [Figure("heart_published_dp_epsilon_spent", worst.epsilon, "", count=count)], [note]


_FLAWS = (
    "Published 'Cyclic' never passes weights on from client to client: not reproduced.",
    "Published 'Pooled' of heart is trained under pooled and tested under per-site scaling.",
    "Its pooled test of federated rows is the reverse; the column here repeats that.",
    "All 30 training patients of Switzerland are positive: alone it learns a constant.",
)


def _table(name: str, one: Benchmark, rows: list[Reproduced]) -> str:
    head = f"{name}: method, average published / ours (sd over seeds), pooled published / ours"
    lines = [
        f"  {r.row.method:<11} {r.row.average:.3f} ({r.row.spread:.3f}) / {r.average:.3f}"
        f" ({r.spread:.3f})   {r.row.pooled:.3f} / {r.pooled:.3f}"
        for r in rows
    ]
    return "\n".join([head, *lines])


def _tcga(folder: Path | None) -> dict[str, Benchmark]:
    named = folder or os.environ.get("LARREY_TCGA_BRCA")
    if named:
        return {"tcga": tcga(Path(named))}
    places = [base / "shared" / "data" / "tcga_brca" for base in (_ROOT, _ROOT.parent)]
    found = [place for place in places if (place / "brca.csv").is_file()]
    return {"tcga": tcga(found[0])} if found else {}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.flamby")
    parser.add_argument("--tcga", type=Path, help="folder with FLamby's Fed-TCGA-BRCA")
    parser.add_argument("--quick", action="store_true", help="few settings, no file")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
