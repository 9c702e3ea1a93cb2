"""Each part against its paper's formula, and against Flower's implementation where it has one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from larrey_strategies.contract import LocalRound, RoundFacts
from larrey_strategies.fedavg import FedAvg
from larrey_strategies.fedavgm import FedAvgM
from larrey_strategies.feddyn import FedDyn
from larrey_strategies.fednova import FedNova
from larrey_strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from larrey_strategies.fedprox import FedProx
from larrey_strategies.mean import weighted_mean
from larrey_strategies.registry import AlgorithmWords, make_algorithm
from larrey_strategies.scaffold import Scaffold
from tests.strategies.algorithms import aggregate

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # typer, which Flower imports, uses old click
    from flwr.app.metadata import Metadata
    from flwr.common import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp import strategy as flower
    from flwr.serverapp.strategy.multikrum import compute_distances

SIZES = [200, 300, 100]
ONE = RoundFacts()


def site_models(params: np.ndarray, seed: int, sites: int = 3) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [params + random.normal(size=params.size).astype(np.float32) for _ in range(sites)]


def mean_update(params, models):
    updates = [m - params for m in models]
    return weighted_mean(updates, SIZES, out=np.empty_like(params), scratch=np.empty_like(params))


def flower_replies(models: list[np.ndarray], sizes=SIZES) -> list[Message]:
    replies = []
    for site, (model, size) in enumerate(zip(models, sizes, strict=True)):
        metrics = MetricRecord({"num-examples": size})
        content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
        metadata = Metadata(1, f"{site}", site + 1, 1, "request", "", 0.0, 60.0, "train")
        replies.append(Message(content=content, metadata=metadata))
    return replies


def flower_result(strategy, models, *, round_: int = 1, sizes=SIZES) -> np.ndarray:
    result, _ = strategy.aggregate_train(round_, flower_replies(models, sizes))
    return result.to_numpy_ndarrays()[0]


def test_fedavg_gives_the_model_of_flowers_fedavg():
    params = np.zeros(40, np.float32)
    models = site_models(params, 1)
    ours, _ = FedAvg().step(params, {}, mean_update(params, models), ONE)
    assert np.allclose(ours, flower_result(flower.FedAvg(), models), atol=1e-6)


@pytest.mark.parametrize(("beta", "eta"), [(0.9, 1.0), (0.5, 0.3), (0.0, 0.5)])
def test_fedavgm_gives_the_models_of_flowers_fedavgm(beta, eta):
    ours = FedAvgM(beta, eta)
    theirs = flower.FedAvgM(server_learning_rate=eta, server_momentum=beta)
    params = np.ones(40, np.float32)
    state = ours.init(params)
    theirs.current_arrays = ArrayRecord([params])
    for round_ in (1, 2, 3):
        models = site_models(params, round_)
        params, state = ours.step(params, state, mean_update(params, models), ONE)
        assert np.allclose(params, flower_result(theirs, models, round_=round_), atol=1e-5)


def adam_correction(t: int) -> float:
    """Return by what Flower's FedAdam multiplies eta; algorithm 2 has nothing of the kind."""
    return float(np.sqrt(1 - 0.99 ** (t + 1)) / (1 - 0.9 ** (t + 1)))


ADAPTIVE = [
    (FedAdagrad(0.1), flower.FedAdagrad(eta=0.1), lambda t: 1.0),
    (FedYogi(0.1), flower.FedYogi(eta=0.1), lambda t: 1.0),
    (FedAdam(0.1), flower.FedAdam(eta=0.1), adam_correction),
]


@pytest.mark.parametrize(("ours", "theirs", "factor"), ADAPTIVE, ids=["adagrad", "yogi", "adam"])
def test_adaptive_from_flowers_zero_start_moves_as_flowers_but_for_its_bias_correction(
    ours, theirs, factor
):
    params = np.ones(40, np.float32)
    state = {"m": np.zeros_like(params), "v": np.zeros_like(params)}
    for t in (1, 2, 3):
        models = site_models(params, t)
        theirs.current_arrays = {"0": params}
        moved = flower_result(theirs, models, round_=t) - params
        after, state = ours.step(params, state, mean_update(params, models), ONE)
        assert np.allclose(state["m"], theirs.m_t["0"], atol=1e-6)
        assert np.allclose(state["v"], theirs.v_t["0"], atol=1e-5)
        assert np.allclose(after - params, moved / factor(t), atol=1e-5)
        params = after


@pytest.mark.parametrize("kind", [FedAdagrad, FedAdam, FedYogi])
def test_the_second_moment_starts_at_tau_squared_as_the_paper_asks(kind):
    state = kind(eta=0.1, tau=0.5).init(np.ones(3, np.float32))
    assert state["v"].tolist() == [0.25] * 3
    assert not state["m"].any()


BY_HAND = {
    FedAdagrad: lambda v, d: v + d * d,
    FedAdam: lambda v, d: 0.75 * v + 0.25 * d * d,
    FedYogi: lambda v, d: v - 0.25 * d * d * np.sign(v - d * d),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_adaptive_follow_algorithm_2_by_hand(kind):
    """One coordinate, three rounds, eta 1, beta_1 0.5, tau 0.5 (beta_2 0.75 where it has one)."""
    extra = {} if kind is FedAdagrad else {"beta_2": 0.75}
    part, x = kind(eta=1.0, beta_1=0.5, tau=0.5, **extra), np.zeros(1, np.float32)
    state, m, v, expected = part.init(x), 0.0, 0.25, 0.0
    for delta in (1.0, -1.0, 0.2):
        x, state = part.step(x, state, np.float32([delta]), ONE)
        m, v = 0.5 * m + 0.5 * delta, BY_HAND[kind](v, delta)
        expected += m / (np.sqrt(v) + 0.5)
        assert x[0] == pytest.approx(expected, rel=1e-5)


def test_fedprox_correction_is_the_gradient_of_its_proximal_term():
    w, w_global = np.float32([1.0, 2.0, -3.0]), np.float32([0.5, 2.0, 1.0])
    prox, h = FedProx(mu=0.3), 1e-3
    term = lambda x: 0.5 * 0.3 * np.sum((x - w_global.astype(float)) ** 2)  # noqa: E731
    numeric = [(term(w + h * e) - term(w - h * e)) / (2 * h) for e in np.eye(3)]
    assert np.allclose(prox.correction(w, w_global, {}, {}), numeric, atol=1e-5)


def test_fednova_without_local_momentum_is_fedavg_to_the_bit():
    params, models = np.ones(40, np.float32), site_models(np.ones(40, np.float32), 4)
    facts, update = RoundFacts(local_steps=7), mean_update(params, models)
    nova, _ = FedNova().step(params, {}, update, facts)
    assert nova.tobytes() == FedAvg().step(params, {}, update, facts)[0].tobytes()


def test_fednova_is_the_papers_normalised_average_of_sites_with_equal_steps():
    """With a_i of local momentum, p_i the weights and tau_eff = sum p_i tau_i."""
    params, models, steps, rho = np.ones(40, np.float32), site_models(np.ones(40), 4), 7, 0.9
    a = [(1 - rho ** (steps - j)) / (1 - rho) for j in range(steps)]
    p = np.array(SIZES) / sum(SIZES)
    directions = [(model - params) / sum(a) for model in models]
    expected = params + steps * sum(w * d for w, d in zip(p, directions, strict=True))
    update = mean_update(params, [m.astype(np.float32) for m in models])
    after, _ = FedNova().step(params, {}, update, RoundFacts(steps, 0.1, rho))
    assert np.allclose(after, expected, atol=1e-5)


def test_scaffold_is_algorithm_1_with_option_ii_though_no_control_variate_is_sent():
    """Four sites, two of which take part in turn; the reference sends delta c_i as the paper."""
    random, facts = np.random.default_rng(8), RoundFacts(5, 0.1, 0.0, share=0.5)
    part = Scaffold(eta_g=0.7)
    x = np.zeros(10, np.float32)
    state, sites = part.init(x), [part.site_init(x) for _ in range(4)]
    x_ref, c_ref, c_i_ref = np.zeros(10), np.zeros(10), [np.zeros(10) for _ in range(4)]
    for chosen in ([0, 1], [2, 3], [1, 2]):
        y = {i: random.normal(size=10).astype(np.float32) for i in chosen}
        deltas_c = []
        for i in chosen:
            c_new = c_i_ref[i] - c_ref - y[i] / (5 * 0.1)
            deltas_c.append(c_new - c_i_ref[i])
            c_i_ref[i] = c_new
            sites[i] = part.site_step(sites[i], LocalRound(x, y[i], state, facts))
        x_ref = x_ref + 0.7 * sum(y.values()) / 2
        c_ref = c_ref + sum(deltas_c) / 4
        x, state = part.step(x, state, np.mean(list(y.values()), axis=0), facts)
    assert np.allclose(x, x_ref, atol=1e-5)
    assert np.allclose(state["c"], c_ref, atol=1e-4)
    assert all(np.allclose(s["c_i"], c, atol=1e-4) for s, c in zip(sites, c_i_ref, strict=True))
    w = random.normal(size=10).astype(np.float32)
    assert np.allclose(part.correction(w, x, sites[1], state), c_ref - c_i_ref[1], atol=1e-4)


def test_feddyn_is_algorithm_1_with_sites_away():
    """Four sites, two of which take part in turn; the reference works on whole local models."""
    random, part, facts = np.random.default_rng(9), FedDyn(alpha=0.3), RoundFacts(5, 0.1, 0.0, 0.5)
    theta, h_ref, g_ref = np.zeros(10), np.zeros(10), [np.zeros(10) for _ in range(4)]
    x = np.zeros(10, np.float32)
    state, sites = part.init(x), [part.site_init(x) for _ in range(4)]
    for chosen in ([0, 1], [2, 3], [1, 2]):
        deltas = {i: random.normal(size=10).astype(np.float32) for i in chosen}
        local = {i: theta + deltas[i] for i in chosen}
        for i in chosen:
            g_ref[i] = g_ref[i] - 0.3 * (local[i] - theta)
            sites[i] = part.site_step(sites[i], LocalRound(x, deltas[i], {}, facts))
        h_ref = h_ref - 0.3 / 4 * sum(local[i] - theta for i in chosen)
        theta = sum(local.values()) / 2 - h_ref / 0.3
        x, state = part.step(x, state, np.mean(list(deltas.values()), axis=0), facts)
    assert np.allclose(x, theta, atol=1e-5)
    assert all(np.allclose(s["g_i"], g, atol=1e-5) for s, g in zip(sites, g_ref, strict=True))
    w = random.normal(size=10)
    penalty = lambda v: 0.15 * np.sum((v - theta) ** 2) - g_ref[1] @ v  # noqa: E731
    numeric = [(penalty(w + 1e-3 * e) - penalty(w - 1e-3 * e)) / 2e-3 for e in np.eye(10)]
    correction = part.correction(w.astype(np.float32), x, sites[1], {})
    assert np.allclose(correction, numeric, atol=1e-4)


ROBUST = [
    ("median", {}, flower.FedMedian, {}),
    ("trimmed-mean", {"beta": 0.25}, flower.FedTrimmedAvg, {"beta": 0.25}),
    ("krum", {"f": 2}, flower.Krum, {"num_malicious_nodes": 2}),
    (
        "multi-krum",
        {"f": 2, "m": 4},
        flower.MultiKrum,
        {"num_malicious_nodes": 2, "num_nodes_to_select": 4},
    ),
]


@pytest.mark.parametrize(("name", "parameters", "theirs", "words"), ROBUST)
@pytest.mark.parametrize("sites", [9, 10])
def test_robust_rules_give_the_models_of_flowers(name, parameters, theirs, words, sites):
    """Flower's MultiKrum weights those it picked by rows, the paper does not: equal rows here."""
    params, sizes = np.zeros(200, np.float32), [100] * sites
    models = site_models(params, 11, sites)
    algorithm = make_algorithm(AlgorithmWords(name, parameters))
    ours = params + aggregate(algorithm, [m - params for m in models], [1.0] * sites)
    assert np.allclose(ours, flower_result(theirs(**words), models, sizes=sizes), atol=1e-5)


def test_flowers_trimmed_mean_keeps_a_value_that_the_paper_leaves_out():
    """0.29 * 100 is 28.999... in float64; the paper trims 29 values of 100 at each end."""
    models = [np.float32([float(i**3)]) for i in range(100)]
    algorithm = make_algorithm(AlgorithmWords("trimmed-mean", {"beta": 0.29}))
    ours = aggregate(algorithm, models, [1.0] * 100)
    kept = [float(i**3) for i in range(29, 71)]
    theirs = flower_result(flower.FedTrimmedAvg(beta=0.29), models, sizes=[1] * 100)
    assert ours[0] == pytest.approx(np.mean(kept), rel=1e-6)
    assert theirs[0] != pytest.approx(np.mean(kept), rel=1e-3)


def test_flowers_krum_loses_the_distances_of_near_models_in_float32_ours_does_not():
    """Models near 100 that differ by 0.01: the one in the middle is the paper's choice."""
    random = np.random.default_rng(1)
    base = np.full(2000, 100, np.float32)
    sizes = [0.05, 0.04, 0.03, 0.001, 0.02, 0.03, 0.04]
    models = [base + (s * random.normal(size=2000)).astype(np.float32) for s in sizes]
    algorithm = make_algorithm(AlgorithmWords("krum", {"f": 1}))
    ours = base + aggregate(algorithm, [m - base for m in models], [1.0] * 7)
    assert np.array_equal(ours, models[3])
    true = np.sum((models[3] - models[4]).astype(float) ** 2)
    theirs = compute_distances([ArrayRecord([m]) for m in models])[3, 4]
    assert abs(theirs - true) > 0.5 * true  # squared norms are 2e7, whose float32 are 2 apart
