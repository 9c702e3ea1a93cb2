"""The rules of a family's budget: what registers, holds, splits, renews and adopts. Pure.

Each function takes an account (or all balances) and an entry and returns what holds afterwards, or
refuses with the code of the broken rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from larrey_privacy.filter import PrivacyFilter
from larrey_privacy.ledger_values import NAMELESS, Account, Entry, Hold, LedgerState
from larrey_privacy.mechanism import Mechanism, spend_from_record
from larrey_protocol.errors import Refusal

__all__ = ["adopt", "hold", "register", "reset", "split", "unregistered"]


def register(state: LedgerState, entry: Entry) -> Account:
    """Return a new family's account; what an adopted anchor says it had spent stays spent.

    A lost family's debits were counted at an order that no anchor tells, so that nothing of its
    budget is left. A lost family known by its tag alone may have been any, so also this one.

    Raises:
        Refusal: ``already-registered``.
    """
    _require_new(state, entry)
    body = entry.body
    privacy_filter = PrivacyFilter(body["epsilon"], body["delta"], body["order"])
    capacity = int(body["capacity_units"])
    account = Account(entry, privacy_filter, str(body["unit"]), capacity, capacity)
    lost = _lost(state, entry.dataset)
    if not lost:
        return account
    return replace(account, carried_units=max(capacity, *lost), is_adopted=True)


def hold(account: Account, entry: Entry) -> Account:
    """Return the account with budget kept for one more study.

    Raises:
        Refusal: ``already-held``, ``rounds-impossible``, ``amount-differs``, ``budget-exhausted``.
    """
    body = entry.body
    study, rounds = str(body["study"]), int(body["rounds_total"])
    if study in account.holds:
        raise Refusal("already-held", f"study {study} already holds budget on {entry.dataset!r}.")
    if rounds < 1 or not 0 <= int(body["spare_rounds"]) < rounds:
        raise Refusal("rounds-impossible", f"a study of {rounds} rounds cannot be held.")
    spend = spend_from_record(body["mechanism"])
    per_round = spend.per_round(rounds) if isinstance(spend, Mechanism) else spend
    units = int(body["units_per_round"])
    if units < 0 or (units > 0) != isinstance(spend, Mechanism):
        raise Refusal("amount-differs", f"a round of {spend} cannot cost {units} units.")
    if units * rounds > account.free_units:
        raise Refusal(
            "budget-exhausted",
            f"the study needs {units * rounds / account.capacity_units:.1%} of the budget of"
            f" {entry.dataset!r}; {account.free_units / account.capacity_units:.1%} is free.",
            "Approve fewer rounds or more noise, or close a study that holds budget.",
        )
    made = Hold(entry, per_round, rounds, int(body["spare_rounds"]), units)
    return replace(account, holds=MappingProxyType({**account.holds, study: made}))


def split(state: LedgerState, entry: Entry) -> Mapping[str, Account]:
    """Return the parent and the family split off it, which carries all that the parent had used.

    From here each spends on its own, so that patients of both are protected by the sum of two
    budgets: both count the split for ever.

    Raises:
        Refusal: ``already-registered``, ``dataset-unregistered``, ``amount-differs``.
    """
    _require_new(state, entry)
    name = str(entry.body["parent"])
    parent = state.accounts.get(name)
    if _lost(state, entry.dataset):
        text = f"{entry.dataset!r} had a budget in the lost tail, or may have had one."
        raise Refusal("already-registered", text)
    if parent is None:
        raise unregistered(name)
    if entry.body["units"] != parent.used_units:
        raise Refusal("amount-differs", f"the part of {name!r} must carry what the whole had used.")
    parent = replace(parent, resets=parent.resets + 1)
    child = replace(
        parent,
        entry=entry,
        holds=MappingProxyType({}),
        carried_units=parent.used_units,
        carries_unbounded=parent.has_unbounded,
    )
    return {name: parent, entry.dataset: child}


def reset(account: Account, entry: Entry) -> Account:
    """Return the account with a whole budget free again; nothing that was used is forgotten.

    Raises:
        Refusal: ``amount-differs`` unless the new capacity is the used units and one budget more.
    """
    capacity = account.used_units + account.budget_units
    if entry.body["capacity_units"] != capacity:
        raise Refusal("amount-differs", f"a reset of {entry.dataset!r} adds exactly one budget.")
    return replace(account, capacity_units=capacity, resets=account.resets + 1)


def adopt(state: LedgerState, entry: Entry) -> LedgerState:
    """Return the balances after what an anchor says was spent is taken as spent.

    Every family then carries at least the difference; a debit so adopted never shrinks. Where
    there is one, the studies that run on the family are closed: how many of their rounds were
    lost is not known, so that no later figure of theirs would be true.
    """
    anchored = {str(family): int(units) for family, units in entry.body["units"].items()}
    accounts, lost = dict(state.accounts), dict(state.lost)
    for family, units in anchored.items():
        account = accounts.get(family)
        if account is None:
            lost[family] = max(lost.get(family, 0), units)
            continue
        missing = max(0, units - account.used_units)
        accounts[family] = replace(
            _closed(account) if missing else account,
            carried_units=account.carried_units + missing,
            is_adopted=True,
        )
    return LedgerState(
        entry.seq, entry.hash, MappingProxyType(accounts), entry.seq, MappingProxyType(lost)
    )


def _closed(account: Account) -> Account:
    holds = {study: replace(hold, is_closed=True) for study, hold in account.holds.items()}
    return replace(account, holds=MappingProxyType(holds))


def unregistered(family: str) -> Refusal:
    """Return the refusal of work on a family without a budget."""
    return Refusal(
        "dataset-unregistered",
        f"the ledger has no budget for {family!r}.",
        "Register the dataset with an epsilon, a delta and a unit.",
    )


def _lost(state: LedgerState, family: str) -> list[int]:
    """Return the units of every lost family that may have been this one."""
    return [
        units for name, units in state.lost.items() if name == family or NAMELESS.fullmatch(name)
    ]


def _require_new(state: LedgerState, entry: Entry) -> None:
    if entry.dataset in state.accounts:
        raise Refusal(
            "already-registered",
            f"{entry.dataset!r} already has a budget, fixed when it was registered.",
            "A budget is never replaced; work within it.",
        )
