"""Each strategy against its paper's formula and against Flower's implementation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from larrey_strategies.contract import RoundFacts
from larrey_strategies.fedavg import FedAvg
from larrey_strategies.fedopt import FedAdam
from larrey_strategies.fedprox import FedProx
from larrey_strategies.mean import weighted_mean

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # typer, which Flower imports, uses old click
    from flwr.app.metadata import Metadata
    from flwr.common import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import strategy as flower

SIZES = [200, 300, 100]


def site_models(params: np.ndarray, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [params + random.normal(size=params.size).astype(np.float32) for _ in SIZES]


def mean_update(params, models):
    updates = [m - params for m in models]
    return weighted_mean(updates, SIZES, out=np.empty_like(params), scratch=np.empty_like(params))


def flower_replies(models: list[np.ndarray]) -> list[Message]:
    replies = []
    for site, (model, size) in enumerate(zip(models, SIZES, strict=True)):
        metrics = MetricRecord({"num-examples": size})
        content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
        metadata = Metadata(1, f"{site}", site + 1, 1, "request", "", 0.0, 60.0, "train")
        replies.append(Message(content=content, metadata=metadata))
    return replies


def test_fedavg_gives_the_model_of_flowers_fedavg():
    params = np.zeros(40, np.float32)
    models = site_models(params, 1)
    theirs, _ = flower.FedAvg().aggregate_train(1, flower_replies(models))
    ours, _ = FedAvg().step(params, {}, mean_update(params, models), RoundFacts())
    assert np.allclose(ours, theirs.to_numpy_ndarrays()[0], atol=1e-6)


def test_fedadam_from_flowers_zero_start_moves_as_flowers_but_for_its_bias_correction():
    """Flower multiplies eta by sqrt(1-beta_2^(t+1))/(1-beta_1^(t+1))."""
    ours, theirs = FedAdam(eta=0.1), flower.FedAdam(eta=0.1)
    params = np.ones(40, np.float32)
    state = {"m": np.zeros_like(params), "v": np.zeros_like(params)}
    for t in (1, 2, 3):
        models = site_models(params, t)
        theirs.current_arrays = {"0": params}
        result, _ = theirs.aggregate_train(t, flower_replies(models))
        after, state = ours.step(params, state, mean_update(params, models), RoundFacts())
        assert np.allclose(state["m"], theirs.m_t["0"], atol=1e-6)
        assert np.allclose(state["v"], theirs.v_t["0"], atol=1e-6)
        correction = np.sqrt(1 - 0.99 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        moved = (result.to_numpy_ndarrays()[0] - params) / correction
        assert np.allclose(after - params, moved, atol=1e-6)
        params = after


def test_fedadam_starts_its_second_moment_at_tau_squared_as_the_paper_asks():
    state = FedAdam(eta=0.1, tau=0.5).init(np.ones(3, np.float32))
    assert state["v"].tolist() == [0.25] * 3
    assert not state["m"].any()


def test_fedadam_follows_algorithm_2_by_hand():
    """One coordinate, two rounds, eta 1, beta_1 0.5, beta_2 0.75, tau 0.5."""
    adam = FedAdam(eta=1.0, beta_1=0.5, beta_2=0.75, tau=0.5)
    x = np.zeros(1, np.float32)
    x, state = adam.step(x, adam.init(x), np.float32([1.0]), RoundFacts())
    v = 0.75 * 0.25 + 0.25
    first = 0.5 / (np.sqrt(v) + 0.5)
    assert x[0] == pytest.approx(first, rel=1e-6)
    x, _ = adam.step(x, state, np.float32([-1.0]), RoundFacts())
    v = 0.75 * v + 0.25
    assert x[0] == pytest.approx(first + (0.25 - 0.5) / (np.sqrt(v) + 0.5), rel=1e-5)


def test_fedprox_correction_is_the_gradient_of_its_proximal_term():
    w, w_global = np.float32([1.0, 2.0, -3.0]), np.float32([0.5, 2.0, 1.0])
    prox, h = FedProx(mu=0.3), 1e-3
    term = lambda x: 0.5 * 0.3 * np.sum((x - w_global.astype(float)) ** 2)  # noqa: E731
    numeric = [(term(w + h * e) - term(w - h * e)) / (2 * h) for e in np.eye(3)]
    assert np.allclose(prox.correction(w, w_global, {}, {}), numeric, atol=1e-5)
