"""Every algorithm finds the known optimum of two convex problems, as far as its paper says."""

from __future__ import annotations

import numpy as np
import pytest

from larrey_strategies.contract import LocalRound, RoundFacts
from larrey_strategies.registry import AlgorithmWords, make_algorithm
from tests.strategies.algorithms import PARAMETERS, ROBUST, aggregate, every_algorithm, vector

EVERY = every_algorithm()


def federate(algorithm, gradients, size, rounds, facts, weights=None, absent=()):
    """Return the model after ``rounds``; of ``absent``, one site in turn stays away."""
    weights = weights or [1.0] * len(gradients)
    params = np.zeros(size, np.float32)
    state = algorithm.init(params)
    sites = [algorithm.site_init(params) for _ in gradients]
    for number in range(rounds):
        away = absent[number % len(absent)] if absent else None
        present = [i for i in range(len(gradients)) if i != away]
        shared = {name: state[name] for name in algorithm.shared}
        updates = []
        for i in present:
            delta = descend(algorithm, gradients[i], params, sites[i], shared, facts)
            sites[i] = algorithm.site_step(sites[i], LocalRound(params, delta, shared, facts))
            updates.append(delta)
        here = [weights[i] for i in present]
        of_round = RoundFacts(
            facts.local_steps, facts.learning_rate, facts.momentum, sum(here) / sum(weights)
        )
        params, state = algorithm.step(params, state, aggregate(algorithm, updates, here), of_round)
    return params


def descend(algorithm, gradient, start, site_state, shared, facts):
    """Return a site's update: heavy-ball steps with the correction added to each gradient."""
    begin = algorithm.begin(start, site_state)
    w, velocity = begin, np.zeros_like(start)
    for _ in range(facts.local_steps):
        step = gradient(w)
        extra = algorithm.correction(w, start, site_state, shared)
        velocity = np.float32(facts.momentum) * velocity + (step if extra is None else step + extra)
        w = w - np.float32(facts.learning_rate) * velocity
    return w - begin


def quadratics(sites: int = 4, size: int = 20, seed: int = 0):
    """Return gradients of 1/2 (w - b_i)' A_i (w - b_i) of unequal A_i, and their A_i and b_i."""
    random = np.random.default_rng(seed)
    scales = random.uniform(0.2, 3.0, (sites, size)).astype(np.float32)
    centres = random.normal(0, 1, (sites, size)).astype(np.float32)
    gradients = [lambda w, a=a, b=b: a * (w - b) for a, b in zip(scales, centres, strict=True)]
    return gradients, scales, centres


def optimum(scales, centres, weights=None):
    weights = np.ones(len(scales)) if weights is None else np.asarray(weights)
    weighted = weights[:, None] * scales
    return (weighted * centres).sum(0) / weighted.sum(0)


MANY = RoundFacts(local_steps=20, learning_rate=0.1)


def distance(name, parameters, **extra) -> float:
    gradients, scales, centres = quadratics()
    algorithm = make_algorithm(AlgorithmWords(name, parameters))
    found = federate(algorithm, gradients, 20, 300, extra.pop("facts", MANY), **extra)
    return float(np.abs(found - optimum(scales, centres, extra.get("weights"))).max())


def test_fedavg_with_many_local_steps_on_unequal_sites_stops_beside_the_optimum():
    assert distance("fedavg", {}) > 0.2


CORRECTED = [("scaffold", {}), ("feddyn", {"alpha": 1.0})]


@pytest.mark.parametrize(("name", "parameters"), CORRECTED)
def test_scaffold_and_feddyn_reach_the_optimum_where_fedavg_does_not(name, parameters):
    assert distance(name, parameters) < 1e-3


@pytest.mark.parametrize(("name", "parameters"), CORRECTED)
def test_they_reach_the_weighted_optimum_of_unequal_weights(name, parameters):
    assert distance(name, parameters, weights=[1.0, 5.0, 2.0, 0.5]) < 1e-3


def test_scaffold_reaches_it_with_local_momentum():
    facts = RoundFacts(local_steps=20, learning_rate=0.02, momentum=0.8)
    assert distance("scaffold", {}, facts=facts) < 1e-3


@pytest.mark.parametrize(("name", "parameters"), CORRECTED)
def test_they_reach_it_with_one_site_away_each_round(name, parameters):
    weights = [1.0, 5.0, 2.0, 0.5]
    assert distance(name, parameters, weights=weights, absent=(0, 1, 2, 3)) < 1e-3


@pytest.mark.parametrize("rounding", [lambda d: d, lambda d: d.astype(np.float16)])
def test_scaffolds_c_stays_the_weighted_mean_of_all_c_i(rounding):
    """Of encoded updates too, as long as a site's state is of what the coordinator decodes."""
    gradients, _, _ = quadratics()
    algorithm, weights = make_algorithm(AlgorithmWords("scaffold")), [0.1, 0.4, 0.3, 0.2]
    params = np.zeros(20, np.float32)
    state, sites = algorithm.init(params), [algorithm.site_init(params) for _ in gradients]
    for present in 5 * ([0, 1, 3], [2], [0, 1, 2, 3], [1, 2]):
        updates = []
        for i in present:
            delta = descend(algorithm, gradients[i], params, sites[i], state, MANY)
            delta = rounding(delta).astype(np.float32)
            sites[i] = algorithm.site_step(sites[i], LocalRound(params, delta, state, MANY))
            updates.append(delta)
        here = [weights[i] for i in present]
        facts = RoundFacts(20, 0.1, 0.0, sum(here))
        params, state = algorithm.step(params, state, aggregate(algorithm, updates, here), facts)
        mean = sum(w * site["c_i"] for w, site in zip(weights, sites, strict=True))
        assert np.allclose(state["c"], mean, atol=1e-5)  # float16 alone would be 1e-4 off


def test_fedprox_with_a_strong_pull_comes_nearer_than_fedavg():
    assert distance("fedprox", {"mu": 10.0}, facts=RoundFacts(20, 0.05)) < 0.5 * distance(
        "fedavg", {}, facts=RoundFacts(20, 0.05)
    )


@pytest.mark.parametrize("name", EVERY)
def test_with_one_step_a_round_all_find_the_minimum_of_equal_sites(name):
    """Equal sites: what is best for one is best for all, under robust rules too."""
    target = np.random.default_rng(5).normal(size=20).astype(np.float32)
    gradients = [lambda w: w - target] * 5
    found = federate(EVERY[name], gradients, 20, 400, RoundFacts(2, 0.1))
    assert np.abs(found - target).max() < 0.02


def test_mr_mtl_reaches_the_joint_minimum_of_its_objective():
    """The least of all losses plus lambda/2 of each model's squared distance to their mean."""
    gradients, scales, centres = quadratics()
    weights, lambda_ = [0.1, 0.4, 0.3, 0.2], 0.7
    algorithm = make_algorithm(AlgorithmWords("mr-mtl", {"lambda": lambda_}))
    # (A_k + lambda) w_k = A_k b_k + lambda m, and m the mean of all w_k
    away = scales / (scales + lambda_)
    weighted = np.array(weights)[:, None] * away
    mean = (weighted * centres).sum(0) / weighted.sum(0)
    for absent in ((), (0, 1, 2, 3)):
        found = federate(algorithm, gradients, 20, 300, MANY, weights=weights, absent=absent)
        assert np.abs(found - mean).max() < 1e-4


def test_mr_mtls_global_model_stays_the_mean_of_all_sites_models():
    """Of encoded updates and with sites away, too; who was never here has the first model."""
    gradients, _, _ = quadratics()
    algorithm = make_algorithm(AlgorithmWords("mr-mtl", {"lambda": 0.3}))
    weights, params = [0.1, 0.4, 0.3, 0.2], vector(8, 20)
    sites = [algorithm.site_init(params) for _ in gradients]
    for present in 4 * ([0, 1], [1], [0, 3], [1, 3]):
        updates = []
        for i in present:
            delta = descend(algorithm, gradients[i], params, sites[i], {}, MANY)
            updates.append(delta.astype(np.float16).astype(np.float32))
            sites[i] = algorithm.site_step(sites[i], LocalRound(params, updates[-1], {}, MANY))
        here = [weights[i] for i in present]
        facts = RoundFacts(20, 0.1, 0.0, sum(here))
        params, _ = algorithm.step(params, {}, aggregate(algorithm, updates, here), facts)
        mean = sum(w * site["w_k"] for w, site in zip(weights, sites, strict=True))
        assert np.allclose(params, mean, atol=1e-5)


def logistic(sites: int = 4, rows: int = 60, seed: int = 3):
    """Return gradients of a regularised logistic loss at each site, and the optimum by Newton."""
    random = np.random.default_rng(seed)
    x = random.normal(random.normal(0, 1, (sites, 1, 6)), 1, (sites, rows, 6))
    y = (random.random((sites, rows)) < 1 / (1 + np.exp(-x @ random.normal(size=6)))) * 1.0

    def gradient(w, features, labels):
        p = 1 / (1 + np.exp(-features @ w))
        return features.T @ (p - labels) / len(labels) + 0.1 * w

    best, everything, labels = np.zeros(6), x.reshape(-1, 6), y.ravel()
    for _ in range(30):
        p = 1 / (1 + np.exp(-everything @ best))
        hessian = (everything.T * (p * (1 - p))) @ everything / len(labels) + 0.1 * np.eye(6)
        best -= np.linalg.solve(hessian, gradient(best, everything, labels))
    gradients = [
        lambda w, a=a, b=b: gradient(w.astype(float), a, b).astype(np.float32)
        for a, b in zip(x, y, strict=True)
    ]
    return gradients, best


@pytest.mark.parametrize("name", [n for n in EVERY if n not in (*ROBUST, "mr-mtl")])
def test_all_averaging_algorithms_find_the_logistic_optimum_with_one_step_a_round(name):
    gradients, best = logistic()
    found = federate(EVERY[name], gradients, 6, 400, RoundFacts(1, 0.5))
    assert np.abs(found - best).max() < 0.02


# alpha adds to the curvature: local steps of 0.5 diverge at the steepest site with alpha = 1.
@pytest.mark.parametrize(("name", "parameters"), [("scaffold", {}), ("feddyn", {"alpha": 0.2})])
def test_scaffold_and_feddyn_find_the_logistic_optimum_with_many_steps(name, parameters):
    gradients, best = logistic()
    algorithm = make_algorithm(AlgorithmWords(name, parameters))
    plain = federate(EVERY["fedavg"], gradients, 6, 150, RoundFacts(20, 0.5))
    found = federate(algorithm, gradients, 6, 150, RoundFacts(20, 0.5))
    assert np.abs(found - best).max() < 1e-3
    assert np.abs(plain - best).max() > 0.05


@pytest.mark.parametrize("name", ROBUST)
def test_the_robust_find_the_way_with_one_hostile_site_in_seven(name):
    """Seven nearly equal sites, one of which sends a thousand times the opposite."""
    random = np.random.default_rng(6)
    target = random.normal(size=20).astype(np.float32)
    near = [target + random.normal(0, 0.05, 20).astype(np.float32) for _ in range(6)]
    gradients = [lambda w, b=b: w - b for b in near]
    hostile = [*gradients[:3], lambda w: -1000 * (w - target), *gradients[3:]]
    radius = {"centered-clipping": {"tau": 0.1}, "norm-bounding": {"bound": 0.1}}
    parameters = radius.get(name, PARAMETERS.get(name, {}))
    algorithm = make_algorithm(AlgorithmWords(name, parameters))
    found = federate(algorithm, hostile, 20, 200, RoundFacts(1, 0.1))
    # Where the six pull as strongly as the one is let: 0.1 * distance * 6 = 0.1, plus their noise.
    assert np.linalg.norm(found - target) < 1 / 6 + 0.1
