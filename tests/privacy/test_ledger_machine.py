"""The ledger under any order of operations, restarts, old copies and adoptions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from larrey_privacy.accounting import noise_for_filter, spend_cost
from larrey_privacy.filter import make_filter
from larrey_privacy.mechanism import Mechanism
from larrey_protocol.errors import IntegrityError, Refusal

FILTER = make_filter(3.0, 1e-5)
STUDIES = st.sampled_from(["one", "two", "three"])
COSTLY = Mechanism(noise_for_filter(FILTER, 0.12, sampling_rate=1.0, steps=2), 1.0, 2)
COST = spend_cost(COSTLY, FILTER)
ORDER = "sha256:" + "0" * 64
ROUNDS = st.integers(0, 5)
INPUTS = st.sampled_from("ab")


class LedgerMachine(RuleBasedStateMachine):
    """Any order of approvals, rounds, closings, restarts, rolled back and lost transactions."""

    site_type: type

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "site.db"
        self.site = self.site_type(self.path)
        with self.site.writing() as ledger:
            ledger.register("heart", FILTER, "patient")
        self.debits = 0  # made, whether or not this copy of the ledger lists them
        self.seen: dict[tuple[str, int, str], int] = {}
        self.head = self.site.ledger.head()
        self.copy()

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
        total = COSTLY.over(rounds)
        self.attempt(lambda ledger: ledger.hold("heart", study, total, rounds, spare_rounds=spare))

    @rule(study=STUDIES, number=ROUNDS, digest=INPUTS)
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

    @rule(study=STUDIES, number=ROUNDS, digest=INPUTS)
    def commit(self, study, number, digest):
        self.attempt(lambda ledger: ledger.commit("heart", study, number, digest, "out"))

    @rule(study=STUDIES, number=ROUNDS, digest=INPUTS)
    def settle(self, study, number, digest):
        self.attempt(lambda ledger: ledger.settle("heart", study, number, digest))

    @rule()
    def renew(self):
        self.attempt(lambda ledger: ledger.reset("heart", ORDER))

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

    @rule()
    def copy(self):
        self.site.restart()  # closing writes all into the one file
        shutil.copy(self.path, f"{self.path}.old")

    @rule()
    def restore_the_copy_and_adopt(self):
        """What the lost tail spent is spent; where nothing was lost, nothing changes."""
        head, spent = self.site.ledger.head(), self.site.ledger.spent()
        self.site.connection.close()
        shutil.copy(f"{self.path}.old", self.path)
        self.site = self.site_type(self.path)
        if self.site.ledger.covers(head, spent):
            assert self.site.ledger.head() == head
            return
        with pytest.raises(IntegrityError, match="ledger-behind"):
            self.site.ledger.require_heads([head])
        with self.site.writing() as ledger:
            ledger.adopt(head, spent, ORDER)
        self.seen = {
            key: seq
            for key, seq in self.seen.items()
            if self.site.ledger.reservation("heart", *key) is not None
        }
        assert self.site.ledger.spent() == spent

    @invariant()
    def spent_is_every_debit_ever_and_never_above_what_was_allowed(self):
        account = self.site.ledger.account("heart")
        assert account.used_units == self.debits * COST
        assert account.bound_units <= account.capacity_units
        for hold in account.holds.values():
            assert hold.rounds_used <= hold.rounds_total

    @invariant()
    def numbers_only_grow(self):
        assert self.site.ledger.head()[0] >= self.head[0]
        self.head = self.site.ledger.head()
        self.site.ledger.require_heads([self.head])


def test_no_order_of_operations_overspends_or_forgets(make_site):
    machine = type("Machine", (LedgerMachine,), {"site_type": make_site})
    checks = settings(
        max_examples=40,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=checks)
