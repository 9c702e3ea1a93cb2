"""The arithmetic of a site's privacy ledger: entries in, balances out, nothing else.

A ledger is a chain of entries. ``advance`` is the only way to move from one state to the next and
holds every rule; storage (``ledger_store``) never changes a number. The same function replays the
chain at every start, so that an entry which breaks a rule is found however it got there.

Words: a *hold* keeps budget for an approved study (rounds and spare rounds) and may be released; a
*reservation* is one round's debit, made before training, and never shrinks; COMMIT says which
output a reservation became, SETTLE that it was delivered; neither changes a number. Amounts are
whole units of 1e-12 of Rényi divergence at the filter's order, computed once when an entry is
written and stored in it: a later library that rounds otherwise changes no balance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from larrey_privacy.filter import PrivacyFilter
from larrey_privacy.mechanism import Mechanism, Spend, spend_from_record
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

GENESIS = "sha256:" + "0" * 64


class Kind(StrEnum):
    """What an entry does."""

    REGISTER = "register"
    HOLD = "hold"
    RESERVE = "reserve"
    COMMIT = "commit"
    SETTLE = "settle"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before it has a place in the chain. ``at`` is a note; it decides nothing."""

    kind: Kind
    dataset: str
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
    """Budget kept for an approved study on one dataset."""

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
    """A dataset's filter and the studies that draw on it."""

    entry: Entry
    filter: PrivacyFilter
    unit: str
    capacity_units: int
    holds: Mapping[str, Hold] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def used_units(self) -> int:
        """Return the sum of all debits."""
        return sum(hold.used_units for hold in self.holds.values())

    @property
    def bound_units(self) -> int:
        """Return debits plus what open holds still keep."""
        return sum(hold.bound_units for hold in self.holds.values())

    @property
    def free_units(self) -> int:
        """Return what a new study may still hold."""
        return self.capacity_units - self.bound_units


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Balances of all datasets and the head of the chain."""

    seq: int = 0
    hash: str = GENESIS
    accounts: Mapping[str, Account] = field(default_factory=lambda: MappingProxyType({}))


def make_entry(state: LedgerState, draft: Draft) -> Entry:
    """Return the draft as the next link of the chain."""
    seq = state.seq + 1
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
    if (entry.seq, entry.previous) != (state.seq + 1, state.hash):
        raise Refusal("chain-broken", f"entry {entry.seq} does not follow entry {state.seq}.")
    account = state.accounts.get(entry.dataset)
    if entry.kind is Kind.REGISTER:
        after = _register(account, entry)
    elif account is None:
        raise Refusal(
            "dataset-unregistered",
            f"the ledger has no budget for dataset {entry.dataset!r}.",
            "Register the dataset with an epsilon, a delta and a unit.",
        )
    elif entry.kind is Kind.HOLD:
        after = _hold(account, entry)
    else:
        after = _in_study(account, entry)
    accounts = MappingProxyType({**state.accounts, entry.dataset: after})
    return LedgerState(entry.seq, entry.hash, accounts)


def _register(account: Account | None, entry: Entry) -> Account:
    if account is not None:
        raise Refusal(
            "already-registered",
            f"dataset {entry.dataset!r} already has a budget, fixed when it was registered.",
            "A budget is never replaced; work within it.",
        )
    body = entry.body
    privacy_filter = PrivacyFilter(body["epsilon"], body["delta"], body["order"])
    return Account(entry, privacy_filter, str(body["unit"]), int(body["capacity_units"]))


def _hold(account: Account, entry: Entry) -> Account:
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
    hold = Hold(entry, per_round, rounds, int(body["spare_rounds"]), units)
    return replace(account, holds=MappingProxyType({**account.holds, study: hold}))


def _in_study(account: Account, entry: Entry) -> Account:
    study = str(entry.body["study"])
    hold = account.holds.get(study)
    if hold is None:
        raise Refusal(
            "not-held",
            f"study {study} holds no budget on dataset {entry.dataset!r}.",
            "Approve the study first.",
        )
    rule = {
        Kind.RESERVE: _reserve,
        Kind.COMMIT: _commit,
        Kind.SETTLE: _settle,
        Kind.RELEASE: _release,
    }[entry.kind]
    holds = {**account.holds, study: rule(hold, entry)}
    return replace(account, holds=MappingProxyType(holds))


def _reserve(hold: Hold, entry: Entry) -> Hold:
    round_number = int(entry.body["round"])
    if hold.is_closed:
        raise Refusal("study-closed", f"study {entry.body['study']} was closed at this site.")
    if spend_from_record(entry.body["mechanism"]) != hold.per_round:
        raise Refusal(
            "mechanism-differs",
            f"round {round_number} asks for another mechanism than was approved.",
        )
    earlier = hold.find(round_number, str(entry.body["input_digest"]))
    if earlier is not None and earlier.output_digest:
        raise Refusal(
            "already-committed",
            f"round {round_number} already has its output; the stored answer is sent again.",
        )
    last = hold.reservations[-1].round if hold.reservations else round_number
    if round_number < last:
        raise Refusal(
            "round-not-increasing", f"round {round_number} asked after round {last} was reserved."
        )
    attempts = sum(1 for r in hold.reservations if r.round == round_number)
    if attempts > hold.spare_rounds:
        raise Refusal(
            "too-many-attempts",
            f"round {round_number} was attempted {attempts} times, its spare rounds included.",
        )
    if hold.rounds_used >= hold.rounds_total:
        raise Refusal(
            "budget-exhausted",
            f"all {hold.rounds_total} rounds approved for study {entry.body['study']} were used.",
            "Propose a new version of the study with more rounds.",
        )
    if entry.body["units"] != hold.units_per_round:
        raise Refusal("amount-differs", f"round {round_number} stores another debit than held.")
    reservation = Reservation(
        entry, round_number, str(entry.body["input_digest"]), hold.units_per_round
    )
    return replace(hold, reservations=(*hold.reservations, reservation))


def _commit(hold: Hold, entry: Entry) -> Hold:
    reservation = _reserved(hold, entry)
    if reservation.output_digest:
        raise Refusal(
            "already-committed",
            f"round {reservation.round} already has its output; the stored answer is sent again.",
        )
    output = str(entry.body["output_digest"])
    return _with(hold, reservation, replace(reservation, output_digest=output))


def _settle(hold: Hold, entry: Entry) -> Hold:
    reservation = _reserved(hold, entry)
    if not reservation.output_digest:
        raise Refusal("not-committed", f"round {reservation.round} has no output to deliver.")
    return _with(hold, reservation, replace(reservation, is_settled=True))


def _release(hold: Hold, entry: Entry) -> Hold:
    if hold.is_closed:
        raise Refusal("study-closed", f"study {entry.body['study']} is already closed.")
    return replace(hold, is_closed=True)


def _reserved(hold: Hold, entry: Entry) -> Reservation:
    round_number = int(entry.body["round"])
    found = hold.find(round_number, str(entry.body["input_digest"]))
    if found is None:
        raise Refusal("not-reserved", f"round {round_number} was never reserved for this input.")
    return found


def _with(hold: Hold, old: Reservation, new: Reservation) -> Hold:
    kept = tuple(new if reservation is old else reservation for reservation in hold.reservations)
    return replace(hold, reservations=kept)


def _content(seq: int, draft: Draft, previous: str) -> dict[str, Any]:  # Any: JSON
    return {
        "seq": seq,
        "kind": draft.kind.value,
        "dataset": draft.dataset,
        "at": draft.at,
        "body": dict(draft.body),
        "previous": previous,
    }
