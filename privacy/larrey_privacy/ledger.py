"""A site's privacy ledger as a chain: entries in, balances out, nothing else.

``advance`` is the only way to move from one state to the next; storage (``ledger_store``) never
changes a number. The same function replays the chain at every start, so that an entry which breaks
a rule is found however it got there. Words and values are in ``ledger_values``, the rules of a
budget in ``ledger_rules``, those of a study's rounds in ``ledger_rounds``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from larrey_privacy import ledger_rules as rules
from larrey_privacy.ledger_rounds import in_study
from larrey_privacy.ledger_values import (
    GENESIS,
    Account,
    Draft,
    Entry,
    Hold,
    Kind,
    LedgerState,
    Reservation,
)
from larrey_protocol.canonical import canonical_json, digest_bytes
from larrey_protocol.errors import Refusal

__all__ = [
    "GENESIS",
    "Account",
    "Draft",
    "Entry",
    "Hold",
    "Kind",
    "LedgerState",
    "Reservation",
    "advance",
    "entry_bytes",
    "make_entry",
    "replay",
]


def make_entry(state: LedgerState, draft: Draft) -> Entry:
    """Return the draft as the next link of the chain."""
    seq = _next_seq(state, draft)
    content = _content(seq, draft, state.hash)
    digest = digest_bytes(canonical_json(content))
    return Entry(seq, draft.kind, draft.dataset, draft.body, draft.at, state.hash, digest)


def entry_bytes(entry: Entry) -> bytes:
    """Return the canonical bytes that the entry's hash covers."""
    draft = Draft(entry.kind, entry.dataset, entry.body, entry.at)
    return canonical_json(_content(entry.seq, draft, entry.previous))


def replay(entries: Iterable[Entry]) -> LedgerState:
    """Return the state after the entries, each checked against every rule.

    Raises:
        Refusal: an entry breaks a rule of the ledger.
    """
    state = LedgerState()
    for entry in entries:
        state = advance(state, entry)
    return state


def advance(state: LedgerState, entry: Entry) -> LedgerState:
    """Return the state after one more entry.

    Raises:
        Refusal: with the code of the broken rule; the state is as before.
    """
    if (entry.seq, entry.previous) != (_next_seq(state, entry), state.hash):
        raise Refusal("chain-broken", f"entry {entry.seq} does not follow entry {state.seq}.")
    if entry.kind is Kind.ADOPT:
        return rules.adopt(state, entry)
    accounts = MappingProxyType({**state.accounts, **_changed(state, entry)})
    return LedgerState(entry.seq, entry.hash, accounts, state.adopted_seq, state.lost)


def _changed(state: LedgerState, entry: Entry) -> Mapping[str, Account]:
    if entry.kind is Kind.REGISTER:
        return {entry.dataset: rules.register(state, entry)}
    if entry.kind is Kind.SPLIT:
        return rules.split(state, entry)
    account = state.accounts.get(entry.dataset)
    if account is None:
        raise rules.unregistered(entry.dataset)
    rule = {Kind.HOLD: rules.hold, Kind.RESET: rules.reset}.get(entry.kind, in_study)
    return {entry.dataset: rule(account, entry)}


def _next_seq(state: LedgerState, entry: Draft | Entry) -> int:
    """Return the number that follows.

    ADOPT jumps over every number of the lost tail, so that a head of the tail and a head of what
    comes after can never be taken for one another.
    """
    passed = int(entry.body["seq"]) if entry.kind is Kind.ADOPT else 0
    return max(state.seq, passed) + 1


def _content(seq: int, draft: Draft, previous: str) -> dict[str, Any]:  # Any: JSON
    return {
        "seq": seq,
        "kind": draft.kind.value,
        "dataset": draft.dataset,
        "at": draft.at,
        "body": dict(draft.body),
        "previous": previous,
    }
