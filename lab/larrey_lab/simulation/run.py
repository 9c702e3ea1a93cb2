"""One simulation from study and data to figures: engine, rounds, scores of held-out patients."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from larrey_client.arrays import flat_of
from larrey_client.remembering import NOTHING, Known, kept_layout, own_model, state_of
from larrey_lab.evaluation import Interval, bootstrap_auc
from larrey_lab.rehearsal import outputs
from larrey_lab.scores import Measure, bootstrap, has_enough, measures
from larrey_lab.simulation.data import Simulated
from larrey_lab.simulation.local import Letters, LocalSites
from larrey_lab.simulation.ray import folder_app, on_ray, require_ray, write_cohorts
from larrey_lab.simulation.rounds import Ask, Everyone, Present, plan_of, rounds
from larrey_lab.simulation.study_sites import as_read, site_app
from larrey_protocol.errors import UsageError
from larrey_protocol.models import initial_parameters, model_layout, request_layout
from larrey_protocol.study import Study
from larrey_strategies.contract import Vector
from larrey_strategies.of_study import require_algorithm

__all__ = ["Engine", "Outcome", "simulate"]

Engine = Literal["local", "ray"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a simulation found.

    Attributes:
        measure: the headline score of the study's task.
        by_round: it, on all held-out patients, the first of round 1.
        final: the last model's, with its interval over patients.
        by_site: the last model on each site's own held-out patients; None where too few, and
            without any where patients were dealt out.
        own_by_site: in the same way each site's own model (MR-MTL, local tensors); without any
            where the sites have none, and on Ray, whose nodes keep theirs.
        others: the last model's further scores, by name.
        model: the last one, flat in layout order.
        seconds: of the rounds alone.
    """

    measure: Measure
    by_round: tuple[float, ...]
    final: Interval
    by_site: dict[str, float | None]
    own_by_site: dict[str, float | None]
    others: dict[str, float]
    model: Vector
    seconds: float


def simulate(
    what: Simulated,
    *,
    engine: Engine = "local",
    present: Present | None = None,
    progress: Progress = lambda _done, _all: None,
    cores: int | None = None,
) -> Outcome:
    """Return what becomes of a study when all its rounds run on this machine.

    Args:
        what: study and data.
        engine: one process, or Flower's simulation on Ray.
        present: who takes part in a round; everybody by default.
        progress: told the answers that came and the answers that there will be.
        cores: of this machine that Ray may use.

    Raises:
        UsageError: ``app-not-simulated``, ``ray-missing``; of the study's algorithm.
        Refusal: as `require_algorithm` and the ClientApp.
    """
    study, split = what.study, what.split
    _require_own_app(study)
    require_algorithm(study)
    who = present or Everyone()
    expected = sum(
        len(who(number, len(study.weights))) for number in range(1, study.file.training.rounds + 1)
    )
    answered = iter(range(1, expected + 1))
    models: list[Vector] = []

    def play(ask: Ask) -> None:
        read = as_read(ask, study.file.training.encoding)
        models.extend(rounds(plan_of(study), initial_parameters(study), read, present=who))

    def done() -> None:
        progress(next(answered), expected)

    letters = _letters(study)
    start = time.perf_counter()
    owns: dict[str, Vector] = {}
    if engine == "local":
        sites = LocalSites(site_app(split.training.__getitem__), letters, done=done)
        play(sites)
        owns = _own_models(study, models[-1], sites)
    else:
        require_ray()
        with tempfile.TemporaryDirectory(prefix="larrey-simulation-") as folder:
            write_cohorts(Path(folder), split.training)
            on_ray(folder_app(Path(folder)), letters, play, done=done, cores=cores)
    return _judged(what, models, owns, time.perf_counter() - start)


def _letters(study: Study) -> Letters:
    text = study.model_dump_json(by_alias=True)
    shared = plan_of(study).algorithm.shared
    incoming = request_layout(study, shared)
    return Letters(model_layout(study), study.file.site_names, text, incoming)


def _own_models(study: Study, final: Vector, sites: LocalSites) -> dict[str, Vector]:
    """Return the model of each site that has another than the global one, by name."""
    layout, owns = kept_layout(study), {}
    for place, name in enumerate(study.file.site_names):
        record = sites.kept(place)
        state = NOTHING if record is None else state_of(layout, flat_of(record, layout))
        own = own_model(study, final, Known(NOTHING, state))
        if not np.array_equal(own, final):
            owns[name] = own
    return owns


def _judged(
    what: Simulated, models: list[Vector], owns: dict[str, Vector], seconds: float
) -> Outcome:
    held, label = what.split.held_out, what.study.contract.label
    first, *others = measures(label)
    found = [outputs(what.study, model, held.features).astype(np.float64) for model in models]
    last, y = found[-1], held.label.astype(np.float64)
    by_site: dict[str, float | None] = {}
    own_by_site: dict[str, float | None] = {}
    for place, name in enumerate(what.study.file.site_names):
        here = held.site == place
        if here.any():
            is_told = has_enough(label, y[here], held.patient[here])
            by_site[name] = first.or_none(y[here], last[here]) if is_told else None
            if name in owns:
                own = outputs(what.study, owns[name], held.features[here]).astype(np.float64)
                own_by_site[name] = first.or_none(y[here], own) if is_told else None
    return Outcome(
        first,
        tuple(first.of(y, each) for each in found),
        bootstrap_auc(y, last[:, 0], held.patient)
        if label.kind == "binary"
        else bootstrap(first, y, last, held.patient),
        by_site,
        own_by_site,
        {measure.name: measure.of(y, last) for measure in others},
        models[-1],
        seconds,
    )


def _require_own_app(study: Study) -> None:
    if study.file.training.app:
        raise UsageError(
            "app-not-simulated",
            f"study '{study.name}' names the app '{study.file.training.app}', which sites list",
            "Simulate a study of a model of the registry.",
        )
