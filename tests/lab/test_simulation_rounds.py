"""The rounds of a simulation are the strategies' own arithmetic; who trains is an argument."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_lab.simulation.rounds import Plan, Share, rounds
from larrey_protocol.errors import UsageError
from larrey_strategies.contract import RoundFacts
from larrey_strategies.registry import AlgorithmWords, make_algorithm

TARGETS = np.array([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]], np.float32)
HALF = RoundFacts(local_steps=1, learning_rate=0.5)


def plan(words=None, *, weights=(1.0, 1.0, 2.0), count=3) -> Plan:
    return Plan(make_algorithm(words or AlgorithmWords()), weights, HALF, count)


def half_way(request):
    """Sites that go half the way from the model to a target of their own."""
    return [(TARGETS[site] - request.start) / 2 for site in request.sites]


def test_federated_averaging_goes_half_the_way_to_the_weighted_mean_each_round():
    models = list(rounds(plan(), np.zeros(2, np.float32), half_way))
    mean = (TARGETS[0] + TARGETS[1] + 2 * TARGETS[2]) / 4
    assert np.allclose(models, [mean * (1 - 0.5**n) for n in (1, 2, 3)])


def test_a_robust_aggregator_of_the_study_is_the_one_that_is_used():
    words = AlgorithmWords(aggregator="median")
    (model,) = rounds(plan(words, count=1), np.zeros(2, np.float32), half_way)
    assert model.tolist() == [0.5, 0.5]


def test_what_a_server_keeps_travels_with_the_model_where_the_paper_says_so():
    seen = []

    def ask(request):
        seen.append(dict(request.shared))
        return half_way(request)

    list(rounds(plan(AlgorithmWords("scaffold")), np.zeros(2, np.float32), ask))
    assert [list(shared) for shared in seen] == [["c"]] * 3
    assert not seen[0]["c"].any()
    # Option II: c is the mean of -delta / (K eta) after a round of all sites.
    assert np.allclose(seen[1]["c"], [-2.25, -2.25])


def test_sites_that_are_away_weigh_nothing():
    def first_alone(number, sites):
        return (0,)

    (model,) = rounds(plan(count=1), np.zeros(2, np.float32), half_way, present=first_alone)
    assert model.tolist() == [0.5, 0.0]


@given(st.floats(0.01, 1.0), st.integers(1, 40), st.integers(0, 5), st.integers(1, 9))
def test_a_share_of_sites_is_drawn_anew_each_round_and_again_alike(share, sites, seed, number):
    drawn = Share(share, seed)(number, sites)
    assert drawn == tuple(sorted(set(drawn))) == Share(share, seed)(number, sites)
    assert set(drawn) <= set(range(sites))
    assert len(drawn) == np.ceil(share * sites)


def test_draws_of_different_rounds_differ():
    draws = {Share(0.5)(number, 20) for number in range(5)}
    assert len(draws) > 1


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(UsageError, match="invalid-share"):
        Share(share)
