"""The rules of the ledger, one by one."""

from __future__ import annotations

import pytest

from larrey_privacy.accounting import noise_for_filter, spend_cost
from larrey_privacy.filter import make_filter
from larrey_privacy.mechanism import UNBOUNDED, Mechanism
from larrey_protocol.errors import Refusal

FILTER = make_filter(3.0, 1e-5)
ROUND = Mechanism(12.0, 1.0, 2, 14)
TOTAL = ROUND.over(5)


@pytest.fixture
def held(site):
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
        ledger.hold("heart", "study", TOTAL, 5, spare_rounds=1)
    return site


def test_nothing_is_reserved_without_a_hold(site):
    with site.writing() as ledger, pytest.raises(Refusal, match="dataset-unregistered"):
        ledger.reserve("heart", "study", 1, "in", ROUND)
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
        with pytest.raises(Refusal, match="not-held"):
            ledger.reserve("heart", "study", 1, "in", ROUND)


def test_a_hold_beyond_the_budget_is_refused(site):
    sigma = noise_for_filter(FILTER, 0.6, sampling_rate=1.0, steps=10)
    big = Mechanism(sigma, 1.0, 10)
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
        ledger.hold("heart", "one", big, 5, spare_rounds=1)
        with pytest.raises(Refusal, match="budget-exhausted"):
            ledger.hold("heart", "two", big, 5, spare_rounds=1)
    view = site.ledger.view("heart")
    assert view.held_share == pytest.approx(0.6, rel=1e-3)
    assert view.used_share == 0


def test_the_same_work_is_debited_once(held):
    with held.writing() as ledger:
        first = ledger.reserve("heart", "study", 1, "in", ROUND)
        assert ledger.reserve("heart", "study", 1, "in", ROUND) == first
        assert ledger.hold("heart", "study", TOTAL, 5, spare_rounds=1).seq == 2
        assert ledger.register("heart", FILTER, "patient").seq == 1
    assert held.ledger.view("heart").studies[0].rounds_used == 1


def test_work_done_again_after_a_crash_is_debited_again(held):
    with held.writing() as ledger:
        ledger.reserve("heart", "study", 1, "in", ROUND)
        ledger.reserve_again("heart", "study", 1, "in", ROUND)
        ledger.commit("heart", "study", 1, "in", "out")
        with pytest.raises(Refusal, match="already-committed"):
            ledger.reserve_again("heart", "study", 1, "in", ROUND)
    assert held.ledger.view("heart").studies[0].rounds_used == 2


def test_a_round_has_one_attempt_and_its_spare_ones(held):
    with held.writing() as ledger:
        ledger.reserve("heart", "study", 1, "a", ROUND)
        ledger.reserve("heart", "study", 1, "b", ROUND)
        with pytest.raises(Refusal, match="too-many-attempts"):
            ledger.reserve("heart", "study", 1, "c", ROUND)


def test_rounds_never_go_back_but_old_answers_are_found(held):
    with held.writing() as ledger:
        first = ledger.reserve("heart", "study", 1, "a", ROUND)
        ledger.reserve("heart", "study", 2, "b", ROUND)
        assert ledger.reserve("heart", "study", 1, "a", ROUND) == first
        with pytest.raises(Refusal, match="round-not-increasing"):
            ledger.reserve("heart", "study", 1, "c", ROUND)


def test_a_study_never_takes_more_rounds_than_approved(held):
    with held.writing() as ledger:
        for number in range(5):
            ledger.reserve("heart", "study", number, "in", ROUND)
        with pytest.raises(Refusal, match="budget-exhausted"):
            ledger.reserve("heart", "study", 5, "in", ROUND)


def test_another_mechanism_than_approved_is_refused(held):
    with held.writing() as ledger, pytest.raises(Refusal, match="mechanism-differs"):
        ledger.reserve("heart", "study", 1, "in", Mechanism(6.0, 1.0, 2, 14))


def test_a_budget_is_never_replaced(held):
    with held.writing() as ledger, pytest.raises(Refusal, match="already-registered"):
        ledger.register("heart", make_filter(8.0, 1e-5), "patient")


def test_closing_returns_only_rounds_never_reserved(held):
    with held.writing() as ledger:
        ledger.reserve("heart", "study", 1, "in", ROUND)
        ledger.release("heart", "study")
        with pytest.raises(Refusal, match="study-closed"):
            ledger.reserve("heart", "study", 2, "in", ROUND)
        with pytest.raises(Refusal, match="already-held"):
            ledger.hold("heart", "study", TOTAL, 5, spare_rounds=1)
    view = held.ledger.view("heart")
    assert view.used_share == spend_cost(ROUND, FILTER) / FILTER.capacity_units
    assert view.held_share == 0
    assert (view.studies[0].rounds_used, view.studies[0].rounds_left) == (1, 0)


def test_an_output_is_recorded_once_and_delivered_after_that(held):
    with held.writing() as ledger:
        with pytest.raises(Refusal, match="not-reserved"):
            ledger.commit("heart", "study", 1, "in", "out")
        ledger.reserve("heart", "study", 1, "in", ROUND)
        with pytest.raises(Refusal, match="not-committed"):
            ledger.settle("heart", "study", 1, "in")
        before = ledger.view("heart")
        ledger.commit("heart", "study", 1, "in", "out")
        ledger.settle("heart", "study", 1, "in")
        with pytest.raises(Refusal, match="already-committed"):
            ledger.commit("heart", "study", 1, "in", "other")
        assert ledger.view("heart") == before
        found = ledger.reservation("heart", "study", 1, "in")
        assert (found.output_digest, found.is_settled) == ("out", True)


def test_work_without_privacy_takes_no_epsilon_and_is_marked(site):
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
        ledger.hold("heart", "plain", UNBOUNDED, 3, spare_rounds=1)
        ledger.reserve("heart", "plain", 1, "in", UNBOUNDED)
    view = site.ledger.view("heart")
    assert view.has_unbounded
    assert view.used_share == 0
    assert view.studies[0].epsilon_spent is None


def test_the_view_shows_pld_beside_the_share_that_binds(held):
    with held.writing() as ledger:
        ledger.reserve("heart", "study", 1, "in", ROUND)
    view = held.ledger.view("heart")
    study = view.studies[0]
    assert 0 < study.epsilon_spent < study.epsilon_approved < view.epsilon
    assert view.used_share + view.held_share + view.free_share == pytest.approx(1.0)
    assert view.epsilon_spent > study.epsilon_spent
    allowed = held.ledger.rounds_allowed("heart", ROUND)
    assert allowed == pytest.approx(view.free_share / study.used_share, abs=1)
