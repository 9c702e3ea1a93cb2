"""Splits, renewals and the way out of a lost tail: what was spent stays spent."""

from __future__ import annotations

import shutil

import pytest

from larrey_privacy.accounting import spend_cost
from larrey_privacy.filter import make_filter
from larrey_privacy.ledger_view import receipt_flags
from larrey_privacy.mechanism import UNBOUNDED, Mechanism
from larrey_protocol.errors import IntegrityError, Refusal

FILTER = make_filter(3.0, 1e-5)
ROUND = Mechanism(12.0, 1.0, 2, 14)
COST = spend_cost(ROUND, FILTER)
ORDER = "sha256:" + "0" * 64


@pytest.fixture
def held(site):
    with site.writing() as ledger:
        ledger.register("heart", FILTER, "patient")
        ledger.hold("heart", "study", ROUND.over(5), 5, spare_rounds=0)
        ledger.reserve("heart", "study", 1, "in", ROUND)
    return site


@pytest.fixture
def lost(held, make_site, tmp_path):
    """Give an old copy of the ledger, and head and spending of the tail it lacks."""
    held.restart()
    shutil.copy(held.path, tmp_path / "old.db")
    with held.writing() as ledger:
        for number in (2, 3, 4):
            ledger.reserve("heart", "study", number, "in", ROUND)
        ledger.commit("heart", "study", 4, "in", "out")
    old = make_site(tmp_path / "old.db")
    yield old, held.ledger.head(), held.ledger.spent()
    old.connection.close()


def adopt(site, head, spent):
    with site.writing() as ledger:
        ledger.adopt(head, spent, ORDER)


def test_an_adopted_anchor_is_spent_and_stays_so_after_a_restart(lost):
    old, head, spent = lost
    with pytest.raises(IntegrityError, match="ledger-behind"):
        old.ledger.require_heads([head])
    assert not old.ledger.covers(head, spent)
    adopt(old, head, spent)
    old.restart()
    assert old.ledger.spent() == spent == {"heart": 4 * COST}
    old.ledger.require_heads([head])
    assert old.ledger.covers(head, spent)
    assert receipt_flags(old.ledger.account("heart")) == ("adopted",)


def test_what_comes_after_an_adoption_has_higher_numbers_than_the_lost_tail(lost):
    old, head, spent = lost
    adopt(old, head, spent)
    assert old.ledger.head()[0] == head[0] + 1
    with old.writing() as ledger:
        ledger.register("lung", FILTER, "patient")
    behind = (head[0] + 1, "sha256:" + "f" * 64)
    with pytest.raises(IntegrityError, match="ledger-behind"):
        old.ledger.require_heads([behind])
    assert not old.ledger.covers(behind, {})


def test_a_lost_head_that_spent_more_than_was_adopted_is_not_covered(lost):
    old, head, spent = lost
    adopt(old, head, spent)
    other_branch = (head[0] - 1, "sha256:" + "e" * 64)
    assert old.ledger.covers(other_branch, spent)
    assert not old.ledger.covers(other_branch, {"heart": spent["heart"] + 1})
    assert not old.ledger.covers(other_branch, {"lung": 1})


def test_adopting_less_than_is_on_record_takes_nothing_back(held):
    before = held.ledger.spent()
    adopt(held, (900, ORDER), {"heart": 1})
    assert held.ledger.spent() == before
    with held.writing() as ledger:  # nothing of it was lost: the study goes on
        ledger.reserve("heart", "study", 2, "in", ROUND)


def test_studies_whose_rounds_were_lost_cannot_go_on(lost):
    old, head, spent = lost
    adopt(old, head, spent)
    with old.writing() as ledger:
        with pytest.raises(Refusal, match="study-closed"):
            ledger.reserve("heart", "study", 5, "in", ROUND)
        assert ledger.release("heart", "study").kind == "hold"  # ended later: nothing changes
    view = old.ledger.view("heart")
    assert view.held_share == 0
    assert view.carried_share == pytest.approx(3 * COST / FILTER.capacity_units)


def test_more_than_the_budget_adopted_leaves_nothing_free(held):
    adopt(held, (900, ORDER), {"heart": 2 * FILTER.capacity_units})
    view = held.ledger.view("heart")
    assert (view.free_share, view.used_share) == (0, 2)
    with held.writing() as ledger, pytest.raises(Refusal, match="budget-exhausted"):
        ledger.hold("heart", "next", ROUND, 1, spare_rounds=0)


def test_a_family_that_only_the_anchor_knows_has_nothing_left_when_it_is_registered(site):
    adopt(site, (7, ORDER), {"heart": 5})
    assert site.ledger.spent() == {"heart": 5}
    with site.writing() as ledger:
        with pytest.raises(Refusal, match="dataset-unregistered"):
            ledger.split("heart", "part", ORDER)
        ledger.register("heart", FILTER, "patient")
        with pytest.raises(Refusal, match="budget-exhausted"):
            ledger.hold("heart", "study", ROUND, 1, spare_rounds=0)
    assert site.ledger.account("heart").is_adopted


def test_a_lost_family_cannot_come_back_as_a_part_of_another(held):
    adopt(held, (900, ORDER), {"part": 5})
    with held.writing() as ledger, pytest.raises(Refusal, match="already-registered"):
        ledger.split("heart", "part", ORDER)


def test_a_split_carries_what_the_whole_had_used_and_both_say_so(held):
    with held.writing() as ledger:
        ledger.hold("heart", "plain", UNBOUNDED, 1, spare_rounds=0)
        ledger.split("heart", "part", ORDER)
    part, whole = held.ledger.account("part"), held.ledger.account("heart")
    assert (part.used_units, part.bound_units, part.free_units) == (
        COST, COST, FILTER.capacity_units - COST,
    )  # fmt: skip
    assert receipt_flags(part) == receipt_flags(whole) == ("unbounded", "family-reset")
    assert (part.unit, part.filter) == (whole.unit, whole.filter)
    with held.writing() as ledger, pytest.raises(Refusal, match="already-registered"):
        ledger.split("heart", "part", ORDER)


def test_a_renewed_budget_forgets_nothing(held):
    epsilon = held.ledger.view("heart").epsilon_spent
    with held.writing() as ledger:
        ledger.reset("heart", ORDER)
        ledger.reset("heart", ORDER)
    held.restart()
    account, view = held.ledger.account("heart"), held.ledger.view("heart")
    assert account.used_units == COST
    assert account.capacity_units == FILTER.capacity_units + COST  # one budget, however often
    assert (account.resets, view.resets, view.epsilon_spent) == (2, 2, epsilon)
    assert receipt_flags(account) == ("family-reset",)


def test_an_account_without_any_of_it_has_no_flags(held):
    assert receipt_flags(held.ledger.account("heart")) == ()
