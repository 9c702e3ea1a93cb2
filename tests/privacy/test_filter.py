"""The filter's inequality, its order and its exact units."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_privacy.accounting import epsilon_pld, rdp_at
from larrey_privacy.filter import UNITS, PrivacyFilter, choose_order, make_filter
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import UsageError

epsilons = st.floats(0.2, 20.0)
deltas = st.floats(1e-9, 1e-3)


@given(epsilons, deltas, st.floats(1.2, 200.0))
def test_capacity_is_the_right_hand_side_of_the_filter_inequality(epsilon, delta, order):
    expected = (
        epsilon - math.log((order - 1) / order) + (math.log(delta) + math.log(order)) / (order - 1)
    )
    if expected <= 1e-9:
        with pytest.raises(UsageError, match="filter-impossible"):
            PrivacyFilter(epsilon, delta, order)
    else:
        assert PrivacyFilter(epsilon, delta, order).capacity == pytest.approx(expected, abs=1e-12)


@given(epsilons, deltas)
def test_a_filter_used_in_full_has_spent_exactly_its_epsilon(epsilon, delta):
    filter_ = make_filter(epsilon, delta)
    assert filter_.epsilon_of(filter_.capacity) == pytest.approx(epsilon)
    assert filter_.share(filter_.capacity) == 1.0
    assert filter_.epsilon_of(0.0) == 0.0


@given(epsilons, deltas)
def test_no_other_order_lets_a_gaussian_through_with_less_noise(epsilon, delta):
    best = choose_order(epsilon, delta)
    for order in (best * 0.9, best * 1.1):
        if order > 1.01:
            other = epsilon + math.log(order / (order - 1))
            other += (math.log(delta) + math.log(order)) / (order - 1)
            assert other / order <= make_filter(epsilon, delta).capacity / best + 2e-3


@given(st.floats(0.0, 50.0))
def test_units_never_lose_a_fraction(rdp):
    units = make_filter(8.0, 1e-5).units(rdp)
    assert rdp * UNITS <= units + 1e-3
    assert units <= rdp * UNITS + 2


def test_what_passes_the_filter_has_a_pld_epsilon_within_the_budget():
    filter_ = make_filter(3.0, 1e-5)
    for sigma in (3.0, 3.5, 4.0, 5.0):
        mechanism = Mechanism(sigma, 1.0, 5)
        if rdp_at(mechanism, filter_.order) <= filter_.capacity:
            assert epsilon_pld(mechanism, 1e-5) <= 3.0


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 1e-5), (math.inf, 1e-5), (1.0, 0.0)])
def test_a_budget_that_means_nothing_is_refused(epsilon, delta):
    with pytest.raises(UsageError, match="filter-impossible"):
        make_filter(epsilon, delta)
