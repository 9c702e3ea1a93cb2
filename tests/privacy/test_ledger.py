"""The rules of the ledger, one by one and under any order of operations."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

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


STUDIES = st.sampled_from(["one", "two", "three"])
COSTLY = Mechanism(noise_for_filter(FILTER, 0.12, sampling_rate=1.0, steps=2), 1.0, 2)


class LedgerMachine(RuleBasedStateMachine):
    """Any order of approvals, rounds, closings, restarts and rolled back transactions."""

    site_type: type

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.site = self.site_type(Path(self.folder.name) / "site.db")
        with self.site.writing() as ledger:
            ledger.register("heart", FILTER, "patient")
        self.debits = 0
        self.seen: dict[tuple[str, int, str], int] = {}

    def teardown(self) -> None:
        self.site.connection.close()
        self.folder.cleanup()

    def attempt(self, change) -> object:
        try:
            with self.site.writing() as ledger:
                return change(ledger)
        except Refusal:
            return None

    @rule(study=STUDIES, rounds=st.integers(1, 5), spare=st.integers(0, 2))
    def hold(self, study, rounds, spare):
        self.attempt(
            lambda ledger: ledger.hold(
                "heart", study, COSTLY.over(rounds), rounds, spare_rounds=spare
            )
        )

    @rule(study=STUDIES, number=st.integers(0, 5), digest=st.sampled_from("ab"))
    def reserve(self, study, number, digest):
        key = (study, number, digest)
        entry = self.attempt(lambda ledger: ledger.reserve("heart", *key, COSTLY))
        if entry is not None and key in self.seen:
            assert entry.seq == self.seen[key]
        elif entry is not None:
            self.seen[key] = entry.seq
            self.debits += 1

    @rule(study=STUDIES)
    def close(self, study):
        self.attempt(lambda ledger: ledger.release("heart", study))

    @rule(study=STUDIES, number=st.integers(0, 5), digest=st.sampled_from("ab"))
    def commit(self, study, number, digest):
        self.attempt(lambda ledger: ledger.commit("heart", study, number, digest, "out"))

    @rule()
    def restart(self):
        head = self.site.ledger.head()
        self.site.restart()
        assert self.site.ledger.head() == head

    @rule()
    def roll_back(self):
        before = self.site.ledger.head()
        self.site.connection.execute("BEGIN IMMEDIATE")
        self.site.ledger.register("other", FILTER, "patient")
        self.site.connection.execute("ROLLBACK")
        assert self.site.ledger.head() == before

    @invariant()
    def spent_is_every_debit_and_never_above_the_budget(self):
        view = self.site.ledger.view("heart")
        cost = spend_cost(COSTLY, FILTER)
        assert view.used_share == self.debits * cost / FILTER.capacity_units
        assert view.used_share + view.held_share <= 1
        for study in view.studies:
            assert study.rounds_used <= study.rounds_total


def test_no_order_of_operations_overspends_or_forgets(make_site):
    machine = type("Machine", (LedgerMachine,), {"site_type": make_site})
    checks = settings(
        max_examples=30,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=checks)
