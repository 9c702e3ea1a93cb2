"""The privacy ledger in a site's SQLite file, and the balances that people read.

The caller owns the transaction (``BEGIN IMMEDIATE`` … ``COMMIT``), so that one durable commit can
cover the ledger and the audit record; a rolled back transaction leaves no trace in the balances.
Every start verifies the whole chain (``ledger_chain``) and replays every rule. A chain cannot show
that its tail was cut off: ``require_heads`` and ``covers`` compare it with heads that the site once
signed, and ``adopt`` takes as spent what such a head says. A "dataset" here is a cohort family: a
dataset registered alone is a family of its own name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from larrey_privacy import ledger_chain as chain
from larrey_privacy.accounting import spend_cost
from larrey_privacy.exclusive import open_exclusive
from larrey_privacy.filter import PrivacyFilter
from larrey_privacy.ledger import (
    Account,
    Draft,
    Entry,
    Hold,
    Kind,
    LedgerState,
    Reservation,
    advance,
    make_entry,
)
from larrey_privacy.ledger_rules import unregistered
from larrey_privacy.ledger_view import DatasetView, view_of
from larrey_privacy.mechanism import Mechanism, Spend, Unbounded, spend_record
from larrey_protocol.errors import IntegrityError, UsageError

__all__ = ["Ledger", "open_exclusive"]


class Ledger:
    """The one writer of a site's privacy ledger; made by ``Ledger.open``."""

    def __init__(self, connection: sqlite3.Connection, state: LedgerState) -> None:
        self._connection = connection
        self._state = state

    @classmethod
    def open(cls, connection: sqlite3.Connection) -> Ledger:
        """Return the ledger of the database, verified from its first entry.

        Raises:
            IntegrityError: ``ledger-damaged`` when an entry, the chain or a rule does not hold.
        """
        chain.create(connection)
        return cls(connection, chain.load(connection))

    def register(
        self, dataset: str, privacy_filter: PrivacyFilter, unit: str, at: str = ""
    ) -> Entry:
        """Fix a dataset's budget for all work ever; the same budget again changes nothing.

        Args:
            dataset: name of the cohort family at this site.
            privacy_filter: epsilon, delta and order, for ``unit``, add/remove.
            unit: what one unit of privacy is, for instance ``patient``.
            at: time as text, a note that decides nothing.

        Raises:
            Refusal: ``already-registered`` with another budget or unit.
        """
        account = self._current().accounts.get(dataset)
        if account is not None and (account.filter, account.unit) == (privacy_filter, unit):
            return account.entry
        body = {
            "epsilon": float(privacy_filter.epsilon),
            "delta": float(privacy_filter.delta),
            "order": float(privacy_filter.order),
            "capacity_units": privacy_filter.capacity_units,
            "unit": unit,
        }
        return self._append(Draft(Kind.REGISTER, dataset, body, at))

    def hold(
        self,
        dataset: str,
        study: str,
        mechanism_total: Spend,
        rounds_total: int,
        at: str = "",
        *,
        spare_rounds: int,
    ) -> Entry:
        """Keep budget for an approved study; the same approval again changes nothing.

        Args:
            dataset: a registered dataset.
            study: digest of the approved study.
            mechanism_total: all rounds together, spare ones included; ``UNBOUNDED`` is recorded
                as such and takes nothing from the filter.
            rounds_total: rounds plus spare rounds.
            at: time as text, a note that decides nothing.
            spare_rounds: how many of the rounds pay for retries; a round may be attempted with
                1 + spare_rounds inputs.

        Raises:
            Refusal: ``budget-exhausted``, ``dataset-unregistered``, ``already-held`` with other
                values, ``rounds-impossible``, ``mechanism-unaccounted``.
        """
        account = self._account(dataset)
        if isinstance(mechanism_total, Unbounded):
            units = 0
        else:
            units = spend_cost(mechanism_total.per_round(rounds_total), account.filter)
        body = {
            "study": study,
            "mechanism": spend_record(mechanism_total),
            "rounds_total": rounds_total,
            "spare_rounds": spare_rounds,
            "units_per_round": units,
        }
        held = account.holds.get(study)
        if held is not None and dict(held.entry.body) == body and not held.is_closed:
            return held.entry
        return self._append(Draft(Kind.HOLD, dataset, body, at))

    def reserve(
        self,
        dataset: str,
        study: str,
        round_number: int,
        input_digest: str,
        mechanism_round: Spend,
        at: str = "",
    ) -> Entry:
        """Debit one round before it touches data; the same work again is not debited again.

        Returns the reservation's entry; its ``seq`` goes into the step's noise keys.

        Raises:
            Refusal: ``not-held``, ``study-closed``, ``mechanism-differs``,
                ``round-not-increasing``, ``too-many-attempts``, ``budget-exhausted``.
        """
        found = self.reservation(dataset, study, round_number, input_digest)
        if found is not None:
            return found.entry
        return self.reserve_again(dataset, study, round_number, input_digest, mechanism_round, at)

    def reserve_again(
        self,
        dataset: str,
        study: str,
        round_number: int,
        input_digest: str,
        mechanism_round: Spend,
        at: str = "",
    ) -> Entry:
        """Debit a round anew although it may be reserved: after a crash left no stored answer.

        Counts as an attempt, paid by the spare rounds.

        Raises:
            Refusal: as ``reserve``; ``already-committed`` when the work has an output.
        """
        hold = self._account(dataset).holds.get(study)
        body = {
            "study": study,
            "round": round_number,
            "input_digest": input_digest,
            "mechanism": spend_record(mechanism_round),
            "units": hold.units_per_round if hold else 0,
        }
        return self._append(Draft(Kind.RESERVE, dataset, body, at))

    def commit(
        self,
        dataset: str,
        study: str,
        round_number: int,
        input_digest: str,
        output_digest: str,
        at: str = "",
    ) -> Entry:
        """Record which output a reservation became, before it is sent.

        Raises:
            Refusal: ``not-reserved``; ``already-committed`` when there is an output already.
        """
        body = {
            "study": study,
            "round": round_number,
            "input_digest": input_digest,
            "output_digest": output_digest,
        }
        return self._append(Draft(Kind.COMMIT, dataset, body, at))

    def settle(
        self, dataset: str, study: str, round_number: int, input_digest: str, at: str = ""
    ) -> Entry:
        """Record that an output was delivered; no number changes.

        Raises:
            Refusal: ``not-reserved``, ``not-committed``.
        """
        body = {"study": study, "round": round_number, "input_digest": input_digest}
        return self._append(Draft(Kind.SETTLE, dataset, body, at))

    def release(self, dataset: str, study: str, at: str = "") -> Entry:
        """Close a study: rounds never reserved return to the budget, debits stay.

        A study that is closed already, perhaps by an adoption, stays as it is.

        Raises:
            Refusal: ``not-held``.
        """
        held = self.held(dataset, study)
        if held is not None and held.is_closed:
            return held.entry
        return self._append(Draft(Kind.RELEASE, dataset, {"study": study}, at))

    def split(self, parent: str, family: str, document: str, at: str = "") -> Entry:
        """Give part of a family a budget of its own, which carries all that the family had used.

        ``document`` is the digest of the order that the site's officer signed.

        Raises:
            Refusal: ``dataset-unregistered``, ``already-registered``.
        """
        body = {
            "parent": parent,
            "units": self._account(parent).used_units,
            "document": document,
        }
        return self._append(Draft(Kind.SPLIT, family, body, at))

    def reset(self, family: str, document: str, at: str = "") -> Entry:
        """Free one whole budget again; what was used stays used and the reset is shown for ever.

        ``document`` is the digest of the order that the site's officer signed.

        Raises:
            Refusal: ``dataset-unregistered``.
        """
        account = self._account(family)
        capacity = account.used_units + account.budget_units
        body = {"capacity_units": capacity, "document": document}
        return self._append(Draft(Kind.RESET, family, body, at))

    def adopt(
        self, head: tuple[int, str], units: Mapping[str, int], document: str, at: str = ""
    ) -> Entry:
        """Take as spent what a lost tail of this ledger spent, and pass over its numbers.

        Args:
            head: of the lost tail, as the site signed it.
            units: what each family must have used at least, in whole units.
            document: digest of the order that the site's officer signed.
            at: time as text, a note that decides nothing.
        """
        body = {"seq": head[0], "hash": head[1], "units": dict(units), "document": document}
        return self._append(Draft(Kind.ADOPT, "", body, at))

    def reservation(
        self, dataset: str, study: str, round_number: int, input_digest: str
    ) -> Reservation | None:
        """Return the newest reservation of this work and what became of it, or None."""
        hold = self.held(dataset, study)
        return hold.find(round_number, input_digest) if hold else None

    def held(self, dataset: str, study: str) -> Hold | None:
        """Return the study's hold on the dataset, or None."""
        account = self._current().accounts.get(dataset)
        return account.holds.get(study) if account else None

    def view(self, dataset: str) -> DatasetView:
        """Return a dataset's balances as people read them.

        Raises:
            Refusal: ``dataset-unregistered``.
        """
        return view_of(dataset, self._account(dataset))

    def account(self, dataset: str) -> Account | None:
        """Return a dataset's filter and holds without computing any epsilon, None if unknown."""
        return self._current().accounts.get(dataset)

    def datasets(self) -> tuple[str, ...]:
        """Return the registered datasets in order of registration."""
        return tuple(self._current().accounts)

    def rounds_allowed(self, dataset: str, mechanism_round: Mechanism) -> int:
        """Return how many such rounds a new study could still hold on the dataset.

        Raises:
            Refusal: ``dataset-unregistered``.
        """
        account = self._account(dataset)
        return account.free_units // spend_cost(mechanism_round, account.filter)

    def head(self) -> tuple[int, str]:
        """Return sequence number and hash of the last entry, for receipts."""
        state = self._current()
        return state.seq, state.hash

    def verify(self) -> tuple[int, str]:
        """Return the head after reading and checking the whole chain again.

        Raises:
            IntegrityError: ``ledger-damaged``.
        """
        self._state = chain.load(self._connection)
        return self._state.seq, self._state.hash

    def spent(self) -> dict[str, int]:
        """Return the whole units that each family has used, for anchors; none ever shrinks."""
        return self._current().spent()

    @property
    def adopted_seq(self) -> int:
        """Return the number of the last ADOPT entry, 0 without one."""
        return self._current().adopted_seq

    def has_head(self, head: tuple[int, str]) -> bool:
        """Return whether the chain once had this head."""
        if head[0] == 0:
            return True  # every ledger began empty
        return bool(head[1]) and head[1] == chain.stored_hash(self._connection, head[0])

    def covers(self, head: tuple[int, str], spent: Mapping[str, int]) -> bool:
        """Return whether nothing that was spent up to a head this site signed is missing here.

        Either the head is in the chain, or it is of a tail that was lost before the last adoption
        and every family has used at least as much now.
        """
        state = self._current()
        if self.has_head(head):
            return True
        used = state.spent()
        return head[0] < state.adopted_seq and all(
            units <= used.get(family, 0) for family, units in spent.items()
        )

    def require_heads(self, heads: Iterable[tuple[int, str]]) -> None:
        """Refuse to go on when the ledger lacks a head that this site once signed.

        Heads of a tail whose anchor was adopted are accounted for.

        Raises:
            IntegrityError: ``ledger-behind`` when the tail was cut or an old copy restored.
        """
        for head in heads:
            if not self.has_head(head) and head[0] >= self._current().adopted_seq:
                raise IntegrityError(
                    "ledger-behind",
                    f"this site signed entry {head[0]} of its ledger, which is not the one here.",
                    "Restore the newest copy of the site's state; do not start an older one.",
                )

    def _account(self, dataset: str) -> Account:
        account = self._current().accounts.get(dataset)
        if account is None:
            raise unregistered(dataset)
        return account

    def _current(self) -> LedgerState:
        """Return the balances of what is stored, read again after a rollback."""
        if chain.head(self._connection) != (self._state.seq, self._state.hash):
            self._state = chain.load(self._connection)
        return self._state

    def _append(self, draft: Draft) -> Entry:
        if not self._connection.in_transaction:
            raise UsageError(
                "ledger-needs-transaction", "the caller begins and commits the transaction."
            )
        state = self._current()
        entry = make_entry(state, draft)
        after = advance(state, entry)
        chain.append(self._connection, entry)
        self._state = after
        return entry
