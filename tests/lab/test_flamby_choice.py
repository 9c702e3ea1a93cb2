"""Choices see training rows alone; central models and intervals agree with other people's code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from larrey_lab.flamby.benchmarks import Benchmark
from larrey_lab.flamby.candidates import Candidate, candidates
from larrey_lab.flamby.central import central, chosen_penalty
from larrey_lab.flamby.data import Part, Site, heart_sites
from larrey_lab.flamby.folds import FOLDS, folds_of
from larrey_lab.flamby.intervals import average_accuracy, draws_of, interval, pooled_concordance
from larrey_lab.flamby.measure import best, central_model, validated_all
from larrey_lab.flamby.protocol import Setting, scores
from larrey_lab.flamby.spent import spent
from larrey_lab.flamby.tasks import Binary, Cox
from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.mechanism import Mechanism
from larrey_strategies.registry import AlgorithmWords, make_algorithm
from tests.lab.flamby_help import binary_sites, survival_part


class Short(Binary):
    rounds = 1


def benchmark_of(sites):
    tables = {"site": sites, "pooled": sites}
    return Benchmark(Short(), tables, "site", "pooled", ("site",), ())


def blinded(site):
    nothing = Part(np.full_like(site.test.x, np.nan), np.full_like(site.test.y, np.nan))
    return replace(site, test=nothing)


TRIED = [Candidate("site", Setting(AlgorithmWords("fedavg", {}), rate, 4)) for rate in (1e-6, 0.1)]


def test_folds_hold_out_every_training_patient_once_a_seed():
    sites = binary_sites()
    folds = folds_of(sites, (1, 2))
    assert len(folds) == 2 * FOLDS
    for i, site in enumerate(sites):
        of_seed = [fold.held_out[i] for fold in folds if fold.seed == 1]
        assert sorted(np.concatenate(of_seed)) == list(range(len(site.train)))
        assert all(not set(fold.train[i]) & set(fold.held_out[i]) for fold in folds)


def test_folds_spread_each_class_evenly():
    site = binary_sites()[0]
    shares = [site.train.y[fold.held_out[0], 0].sum() for fold in folds_of([site], (3,))]
    assert max(shares) - min(shares) <= 1


def test_a_setting_is_chosen_without_any_test_row():
    sites = binary_sites()
    choices = []
    for seen in (sites, tuple(blinded(site) for site in sites)):
        one = benchmark_of(seen)
        folds = folds_of(seen, (1,))
        values = validated_all(one, TRIED, folds)
        chosen = best(one, TRIED, values, seeds=(1,))
        choices.append((values, chosen.models.tolist(), central_model(one, folds)[0]))
    assert choices[0] == choices[1]


def test_the_best_is_what_cross_validation_says():
    one = benchmark_of(binary_sites())
    values = validated_all(one, TRIED, folds_of(one.sites, (1,)))
    chosen = best(one, TRIED, values, seeds=(1,))
    assert (chosen.candidate, chosen.tried) == (TRIED[1], 2)
    assert values[1] > values[0]


def test_every_candidate_is_a_study_that_larrey_knows_and_none_is_listed_twice():
    tried = candidates(("site", "contract"), 4)
    assert len({str(candidate) for candidate in tried}) == len(tried) == 176
    for candidate in tried:
        make_algorithm(candidate.setting.algorithm)


def test_central_logistic_regression_is_that_of_scikit_learn():
    sites = binary_sites()
    rows = sum(len(site.train) for site in sites)
    ours = central(Binary(), sites, 0.1)
    x, y = (np.concatenate([getattr(s.train, a) for s in sites]) for a in ("x", "y"))
    theirs = LogisticRegression(C=1 / (0.1 * rows), tol=1e-8, max_iter=1000).fit(x, y[:, 0])
    assert ours == pytest.approx(np.r_[theirs.coef_[0], theirs.intercept_], abs=1e-3)


def test_central_cox_regression_is_where_the_partial_likelihood_is_flat():
    part = survival_part(patients=60)
    model = central(Cox(), [Site("all", part, part)], 0.05)[:-1].astype(np.float64)

    def goal(w):
        score, (event, time) = part.x @ w, part.y.T
        risk = [np.logaddexp.reduce(score[time >= t]) for t in time]
        return -np.mean(event * (score - risk)) + 0.025 * w @ w

    steps = 1e-4 * np.eye(3)
    slope = [(goal(model + step) - goal(model - step)) / 2e-4 for step in steps]
    assert slope == pytest.approx([0, 0, 0], abs=1e-4)


def test_an_interval_begins_with_the_plain_figure_and_covers_it():
    sites = binary_sites()
    models = np.array([[1, 0, 0, 0], [1, 0.2, 0, 0]], np.float32)
    values = average_accuracy(models, sites, draws_of(sites, resamples=300))
    plain = np.mean([Binary().average(sites, scores(model, sites)) for model in models])
    assert values[0] == pytest.approx(plain)
    found = interval(values)
    assert found.low < found.value < found.high


def test_pooled_concordance_over_draws_begins_with_the_plain_figure():
    sites = [Site(str(i), survival_part(seed=i), survival_part(seed=i + 9)) for i in range(2)]
    models = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    values = pooled_concordance(models, sites, draws_of(sites, resamples=20))
    plain = [Cox().pooled(tuple(sites), scores(model, sites)) for model in models]
    assert values[0] == pytest.approx(np.mean(plain))
    assert len(values) == 21


def test_a_draw_of_whole_rows_twice_changes_no_figure():
    sites = [Site("all", survival_part(), survival_part(seed=5))]
    model = np.array([[1, 0, 0, 0]], np.float32)
    twice = [np.vstack([np.ones(30), np.full(30, 2.0)])]
    once, doubled = pooled_concordance(model, sites, twice)
    assert once == pytest.approx(doubled)


def test_a_better_model_is_better_in_every_paired_interval():
    sites = binary_sites()
    draws = draws_of(sites, resamples=300)
    good, bad = (
        average_accuracy(np.array([[w, 0, 0, 0]], np.float32), sites, draws) for w in (1, -1)
    )
    assert interval(good - bad).low > 0


def test_penalties_are_chosen_from_the_folds():
    sites = binary_sites()
    assert chosen_penalty(Binary(), sites, folds_of(sites, (1,))) > 0


def test_published_privacy_cost_more_than_it_claimed():
    switzerland = heart_sites()[2:3]
    (one,) = spent(switzerland, claimed=1.0, delta=1e-4)
    assert (one.steps_calibrated, one.steps_run) == (120, 1500)
    assert epsilon_pld(Mechanism(one.noise, 1 / 8, 120), 1e-4) == pytest.approx(1, abs=0.01)
    assert 4 < one.epsilon < 4.4  # 4.10 with the noise that Opacus asks for
    assert one.epsilon_shuffled > one.epsilon
