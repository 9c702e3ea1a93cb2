"""Balances of a dataset as people read them.

The share of the filter is what decides; the PLD epsilon is shown beside it and is never a
numerator over the budget. Computes; stores nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from larrey_privacy.accounting import epsilon_pld
from larrey_privacy.ledger_values import Account, Hold
from larrey_privacy.mechanism import Mechanism

__all__ = ["DatasetView", "StudyView", "receipt_flags", "view_of"]

ReceiptFlag = Literal["unbounded", "family-reset", "adopted"]


@dataclass(frozen=True, slots=True)
class StudyView:
    """One study on one dataset. Shares are of the dataset's filter, 1.0 is all of it.

    Attributes:
        rounds_total: approved rounds, spare ones included.
        rounds_left: rounds that may still be reserved; 0 once closed.
        epsilon_spent: PLD epsilon of the rounds reserved so far; None without privacy.
        epsilon_approved: PLD epsilon of all approved rounds, the figure that holds also after an
            early stop; None without privacy. Both at the dataset's delta, its unit, add/remove.
    """

    study: str
    is_unbounded: bool
    is_closed: bool
    rounds_total: int
    rounds_used: int
    rounds_left: int
    used_share: float
    held_share: float
    epsilon_spent: float | None
    epsilon_approved: float | None


@dataclass(frozen=True, slots=True)
class DatasetView:
    """A dataset's budget. ``used + held + free = 1`` as shares of the filter.

    Only where an adopted anchor says that more was used than the filter holds is the sum larger.

    Attributes:
        epsilon, delta, order: the filter fixed at registration, for ``unit``, add/remove.
        epsilon_spent: epsilon of all debits together at the filter's order; holds across studies
            and after adaptive choices.
        carried_share: part of ``used`` that no study here accounts for: it was spent before a
            split, or in a tail that was lost and adopted.
        has_unbounded: some study on this dataset ran, or may run, without privacy.
        resets: how often the officer split the family or renewed its budget; shares are of the
            renewed budget, ``epsilon_spent`` is of all work ever.
        is_adopted: part of the history is known only by an anchor.
    """

    dataset: str
    unit: str
    epsilon: float
    delta: float
    order: float
    used_share: float
    held_share: float
    free_share: float
    carried_share: float
    epsilon_spent: float
    has_unbounded: bool
    resets: int
    is_adopted: bool
    studies: tuple[StudyView, ...]


def view_of(dataset: str, account: Account) -> DatasetView:
    """Return the account's balances; PLD figures are cached and cost up to seconds when new."""
    capacity = account.capacity_units
    studies = tuple(_study(name, hold, account) for name, hold in account.holds.items())
    return DatasetView(
        dataset=dataset,
        unit=account.unit,
        epsilon=account.filter.epsilon,
        delta=account.filter.delta,
        order=account.filter.order,
        used_share=account.used_units / capacity,
        held_share=(account.bound_units - account.used_units) / capacity,
        free_share=account.free_units / capacity,
        carried_share=account.carried_units / capacity,
        epsilon_spent=account.filter.epsilon_of_units(account.used_units),
        has_unbounded=account.has_unbounded,
        resets=account.resets,
        is_adopted=account.is_adopted,
        studies=studies,
    )


def receipt_flags(account: Account) -> tuple[ReceiptFlag, ...]:
    """Return what every later claim about this budget must carry.

    ``unbounded``: some work here has no epsilon; ``family-reset``: its budget was split or renewed;
    ``adopted``: part of its history is known only by an anchor.
    """
    facts: tuple[tuple[ReceiptFlag, bool], ...] = (
        ("unbounded", account.has_unbounded),
        ("family-reset", account.resets > 0),
        ("adopted", account.is_adopted),
    )
    return tuple(flag for flag, holds in facts if holds)


def _study(name: str, hold: Hold, account: Account) -> StudyView:
    delta, capacity = account.filter.delta, account.capacity_units
    spent: float | None = None
    approved: float | None = None
    if isinstance(hold.per_round, Mechanism):
        used = hold.rounds_used
        spent = epsilon_pld(hold.per_round.over(used), delta) if used else 0.0
        approved = epsilon_pld(hold.per_round.over(hold.rounds_total), delta)
    return StudyView(
        study=name,
        is_unbounded=not isinstance(hold.per_round, Mechanism),
        is_closed=hold.is_closed,
        rounds_total=hold.rounds_total,
        rounds_used=hold.rounds_used,
        rounds_left=0 if hold.is_closed else hold.rounds_total - hold.rounds_used,
        used_share=hold.used_units / capacity,
        held_share=(hold.bound_units - hold.used_units) / capacity,
        epsilon_spent=spent,
        epsilon_approved=approved,
    )
