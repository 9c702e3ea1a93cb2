"""What a site's privacy ledger holds: entries, balances, words. Values only; the rules are beside.

Words: a *hold* keeps budget for an approved study (rounds and spare rounds) and may be released; a
*reservation* is one round's debit, made before training, and never shrinks; COMMIT says which
output a reservation became, SETTLE that it was delivered; neither changes a number. What an account
*carries* was spent by work that this chain does not list: before a family was split off, or in a
tail that was lost and whose anchor was adopted. Amounts are whole units of 1e-12 of Rényi
divergence at the filter's order, computed once when an entry is written and stored in it: a later
library that rounds otherwise changes no balance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from larrey_privacy.filter import PrivacyFilter
from larrey_privacy.mechanism import Mechanism, Spend

__all__ = [
    "GENESIS",
    "NAMELESS",
    "Account",
    "Draft",
    "Entry",
    "Hold",
    "Kind",
    "LedgerState",
    "Reservation",
]

GENESIS = "sha256:" + "0" * 64
NAMELESS = re.compile(r"f-[0-9a-f]{16}")  # how an anchor calls a family whose name is lost too


class Kind(StrEnum):
    """What an entry does."""

    REGISTER = "register"
    HOLD = "hold"
    RESERVE = "reserve"
    COMMIT = "commit"
    SETTLE = "settle"
    RELEASE = "release"
    SPLIT = "split"
    RESET = "reset"
    ADOPT = "adopt"


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before it has a place in the chain. ``at`` is a note; it decides nothing."""

    kind: Kind
    dataset: str  # the cohort family; empty in ADOPT, which concerns all
    body: Mapping[str, Any]  # Any: JSON values are recursive
    at: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the chain; ``hash`` covers everything else, ``previous`` included."""

    seq: int
    kind: Kind
    dataset: str
    body: Mapping[str, Any]  # Any: JSON values are recursive
    at: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """A debit of one round, in whole units, with what became of it."""

    entry: Entry
    round: int
    input_digest: str
    units: int
    output_digest: str = ""
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Budget kept for an approved study on one family."""

    entry: Entry
    per_round: Spend
    rounds_total: int
    spare_rounds: int
    units_per_round: int
    is_closed: bool = False
    reservations: tuple[Reservation, ...] = ()

    @property
    def rounds_used(self) -> int:
        """Return how many rounds were reserved, spare ones included."""
        return len(self.reservations)

    @property
    def used_units(self) -> int:
        """Return what was reserved."""
        return sum(reservation.units for reservation in self.reservations)

    @property
    def bound_units(self) -> int:
        """Return what the study takes from the filter: the hold while open, then the debits."""
        if self.is_closed:
            return self.used_units
        return self.rounds_total * self.units_per_round

    def find(self, round_number: int, input_digest: str) -> Reservation | None:
        """Return the newest reservation of this work, or None."""
        key = (round_number, input_digest)
        matching = (r for r in reversed(self.reservations) if (r.round, r.input_digest) == key)
        return next(matching, None)


@dataclass(frozen=True, slots=True)
class Account:
    """A cohort family's filter and the studies that draw on it.

    Attributes:
        budget_units: the capacity fixed at registration.
        capacity_units: what may be spent in all; grows only by a signed reset.
        carried_units: spent by work that this chain does not list; never shrinks.
        resets: how often an officer split the family or renewed its budget.
        is_adopted: part of its history is known only by an anchor.
    """

    entry: Entry
    filter: PrivacyFilter
    unit: str
    budget_units: int
    capacity_units: int
    holds: Mapping[str, Hold] = field(default_factory=lambda: MappingProxyType({}))
    carried_units: int = 0
    carries_unbounded: bool = False
    resets: int = 0
    is_adopted: bool = False

    @property
    def used_units(self) -> int:
        """Return the sum of all debits."""
        return self.carried_units + sum(hold.used_units for hold in self.holds.values())

    @property
    def bound_units(self) -> int:
        """Return debits plus what open holds still keep."""
        return self.carried_units + sum(hold.bound_units for hold in self.holds.values())

    @property
    def free_units(self) -> int:
        """Return what a new study may still hold."""
        return max(0, self.capacity_units - self.bound_units)

    @property
    def has_unbounded(self) -> bool:
        """Return whether some study here ran, or may run, without differential privacy."""
        studies = self.holds.values()
        return self.carries_unbounded or any(
            not isinstance(s.per_round, Mechanism) for s in studies
        )


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Balances of all families and the head of the chain.

    Attributes:
        adopted_seq: number of the last ADOPT entry, 0 without one. Heads below it that are not in
            the chain were lost and are accounted for.
        lost: units that an adopted anchor says were spent on families unknown here.
    """

    seq: int = 0
    hash: str = GENESIS
    accounts: Mapping[str, Account] = field(default_factory=lambda: MappingProxyType({}))
    adopted_seq: int = 0
    lost: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def spent(self) -> dict[str, int]:
        """Return what each family has used, in whole units; no figure ever shrinks."""
        used = {family: account.used_units for family, account in self.accounts.items()}
        return dict(self.lost) | used
