"""The rules of a study's rounds: reserve, commit, settle, release. Pure.

Each takes an account and an entry and returns the account afterwards, or refuses with the code of
the broken rule.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from larrey_privacy.ledger_values import Account, Entry, Hold, Kind, Reservation
from larrey_privacy.mechanism import spend_from_record
from larrey_protocol.errors import Refusal

__all__ = ["in_study"]


def in_study(account: Account, entry: Entry) -> Account:
    """Return the account after an entry about a study that it holds budget for.

    Raises:
        Refusal: ``not-held``, ``study-closed``, ``mechanism-differs``, ``already-committed``,
            ``round-not-increasing``, ``too-many-attempts``, ``budget-exhausted``,
            ``amount-differs``, ``not-reserved``, ``not-committed``.
    """
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
