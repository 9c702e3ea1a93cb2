"""Permits: what a file must say, how versions follow each other, how one stands on a day."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from larrey_protocol.errors import IntegrityError
from larrey_protocol.permit import Permit, permit_state, succeeds
from larrey_protocol.signed import Signed, open_signed, sign
from tests.protocol.permits import CONSORTIUM, DAY, following, permit, signed_permit


def chain(*changes: dict[str, Any]) -> list[tuple[str, Permit]]:
    """Return a signed first version and one more a change."""
    signed = [signed_permit()]
    for change in changes:
        signed.append(sign(following(signed[-1], **change), CONSORTIUM))
    return [(s.digest, open_signed(s, Permit, CONSORTIUM.public)) for s in signed]


@pytest.mark.parametrize(
    "changes",
    [
        {"use__valid_until": "2026-01-01"},
        {"use__retention_until": "2026-06-01"},
        {"use__purposes": []},
        {"use__purposes": ["advertising"]},
        {"use__people": []},
        {"datasets": []},
        {"rules__opposition": "none"},
        {"rules__opposition_exception": "article 71(4)"},
        {"hosting__country": "France"},
        {"permit__previous": "sha256:1"},
    ],
)
def test_a_permit_that_contradicts_itself_is_no_permit(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        permit(**changes)


def test_versions_follow_each_other() -> None:
    known = chain({}, {"permit__state": "RENEWED", "use__valid_until": "2027-06-30"})
    for number in range(1, len(known) + 1):
        succeeds(known[: number - 1], known[number - 1][1])


@pytest.mark.parametrize(
    "change",
    [
        {"permit__version": 3},
        {"permit__version": 1},
        {"permit__previous": ""},
        {"permit__previous": "sha256:" + "0" * 64},
        {"permit__reference": "test/2"},
        {"permit__state": "GRANTED"},
    ],
)
def test_a_gap_a_fork_or_another_permit_does_not_follow(change: dict[str, Any]) -> None:
    first = signed_permit()
    known = [(first.digest, permit())]
    with pytest.raises(IntegrityError, match="permit-chain-broken"):
        succeeds(known, following(first, **change))


def test_a_first_version_is_granted() -> None:
    with pytest.raises(IntegrityError, match="permit-chain-broken"):
        succeeds([], permit(permit__state="AMENDED"))


def test_nothing_follows_a_revocation() -> None:
    known = chain({"permit__state": "REVOKED"})
    signed: Signed = sign(known[-1][1], CONSORTIUM)
    with pytest.raises(IntegrityError, match="permit-chain-broken"):
        succeeds(known, following(signed))


@given(st.dates(dt.date(2025, 1, 1), dt.date(2028, 1, 1)))
def test_a_permit_is_in_force_from_its_first_to_its_last_day(day: dt.date) -> None:
    use, state = permit().use, permit_state(permit(), day)
    assert (state == "GRANTED") == (use.valid_from <= day <= use.valid_until)
    assert (state == "EXPIRED") == (day > use.valid_until)
    assert permit_state(permit(permit__state="REVOKED"), day) == "REVOKED"


@pytest.mark.parametrize("state", ["AMENDED", "RENEWED"])
def test_a_later_version_in_force_is_called_what_it_is(state: str) -> None:
    assert permit_state(permit(permit__state=state, permit__version=2), DAY) == state
