"""Whose signature counts: the consortium's key, or a person on its roster who has the right."""

from __future__ import annotations

import pytest

from larrey_protocol.decisions import Order
from larrey_protocol.errors import IntegrityError, LarreyError
from larrey_protocol.keys import SigningKey
from larrey_protocol.people import Person, Role
from larrey_protocol.permit import Permit
from larrey_protocol.roster import EMPTY, Roster, open_under
from larrey_protocol.signed import sign
from tests.protocol.permits import permit

ROOT, OWN, OTHER = (SigningKey.generate() for _ in range(3))


def roster(role: Role) -> Roster:
    ada = Person(name="ada", role=role, key=OWN.public)
    return Roster(version=1, issued_at=1.0, people=(ada,))


def test_the_consortium_key_needs_no_roster() -> None:
    made = permit()
    assert open_under(sign(made, ROOT), Permit, "permit", consortium=ROOT.public, roster=EMPTY)


@pytest.mark.parametrize(
    ("right", "role", "is_allowed"),
    [
        ("permit", "lead", True), ("permit", "member", False), ("permit", "operator", False),
        ("propose", "lead", True), ("propose", "member", False), ("launch", "member", True),
        ("launch", "operator", False), ("halt", "operator", True), ("resume", "operator", False),
        ("close", "member", False), ("release", "member", True), ("release", "auditor", False),
        ("countersign", "lead", False), ("approve", "lead", False), ("made-up", "lead", False),
    ],
)  # fmt: skip
def test_a_person_signs_what_the_role_allows_and_nothing_else(
    right: str, role: Role, is_allowed: bool
) -> None:
    signed = sign(permit(), OWN)
    if is_allowed:
        assert open_under(signed, Permit, right, consortium=ROOT.public, roster=roster(role))
        return
    with pytest.raises(LarreyError) as caught:
        open_under(signed, Permit, right, consortium=ROOT.public, roster=roster(role))
    assert caught.value.code == "role-not-allowed"


def test_a_key_that_the_roster_does_not_list_signs_nothing() -> None:
    with pytest.raises(IntegrityError, match="wrong-signer"):
        open_under(
            sign(permit(), OTHER), Permit, "permit", consortium=ROOT.public, roster=roster("lead")
        )


def test_a_signature_under_one_kind_is_none_under_another() -> None:
    with pytest.raises(IntegrityError, match="wrong-document"):
        open_under(
            sign(permit(), OWN), Order, "launch", consortium=ROOT.public, roster=roster("lead")
        )


@pytest.mark.parametrize("name", ["consortium", "coordinator"])
def test_no_person_bears_the_name_of_a_part(name: str) -> None:
    with pytest.raises(ValueError, match=f"nobody may be called {name}"):
        Roster(version=1, issued_at=0.0, people=(Person(name=name, role="lead", key=OTHER.public),))
