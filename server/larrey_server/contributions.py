"""What becomes of a closing round's contributions: what the worker averages, and the metrics.

Metrics are what a standard app's handlers beside train told; they are few numbers, read here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from larrey_protocol.models import phase_layout
from larrey_protocol.study import Study
from larrey_server.aggregator import Averaging
from larrey_server.checkpoints import Checkpoints
from larrey_server.round_values import Metrics, State
from larrey_strategies.of_study import facts_of
from larrey_strategies.registry import words_of

__all__ = ["averaging", "mean_metrics"]


def averaging(
    study: Study,
    round_number: int,
    updates: tuple[tuple[str, str], ...],
    *,
    checkpoints: Checkpoints,
    path: Callable[[str], Path],
) -> Averaging:
    """Return the worker's order for a round's updates: (site, digest), in roster order."""
    training = study.file.training
    weights = dict(zip(study.file.site_names, study.weights, strict=True))
    return Averaging(
        layout=checkpoints.layout,
        updates=tuple((path(update), weights[site]) for site, update in updates),
        model=checkpoints.model(round_number - 1),
        new_model=checkpoints.model(round_number),
        words=words_of(training),
        state=checkpoints.state(round_number - 1) if round_number > 1 else None,
        new_state=checkpoints.state(round_number),
        encoding=training.encoding,
        facts=facts_of(study, share=min(1.0, sum(weights[site] for site, _ in updates))),
        new_request=checkpoints.request(round_number),
    )


def mean_metrics(study: Study, state: State, path: Callable[[str], Path]) -> Metrics:
    """Return by phase and name the means over the sites that contribute to the closing round.

    Weights are the study's public ones, renormalised over these sites; sums are float64, in roster
    order. They describe the model that the round started from.

    Args:
        study: what is averaged.
        state: at the close of the round, all answers in.
        path: where a checked answer lies; read here, so not yet dropped.
    """
    weight = dict(zip(study.file.site_names, study.weights, strict=True))
    sites = [cell.site for cell in state.cells if cell.outcome == "contributed"]
    shares = np.array([weight[site] for site in sites], np.float64)
    shares /= shares.sum()
    answers = {(reply.phase, reply.site): reply.update for reply in state.replies}
    means: dict[str, dict[str, float]] = {}
    for phase in state.plan.phases[1:]:
        table = [_values(study, phase, path(answers[phase, site])) for site in sites]
        values = (shares[:, None] * np.stack(table)).sum(axis=0)
        names = study.file.training.metrics
        means[phase] = {name: float(v) for name, v in zip(names, values, strict=True)}
    return means


def _values(study: Study, phase: str, path: Path) -> NDArray[np.float64]:
    """Return the values of an answer, whose layout the worker has checked."""
    header = phase_layout(study, phase).header
    return np.frombuffer(path.read_bytes(), "<f4", offset=len(header)).astype(np.float64)
