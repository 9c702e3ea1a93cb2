"""What a permit must say for a study to be run: each rule refuses with its own code."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from larrey_protocol.lawful import UNLAWFUL, is_named, not_in_force, unlawful
from larrey_protocol.permit import Permit
from larrey_protocol.roster import EMPTY
from tests.protocol.permits import ADA, BEN, CONSORTIUM, DAY, EVE, permit, roster
from tests.protocol.samples import study

LAWFUL: dict[str, Any] = {
    "study": study(),
    "permit": permit(),
    "day": DAY,
    "roster": roster(),
    "signer": ADA.public,
    "consortium": CONSORTIUM.public,
}

BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("permit-unknown", {"permit": None}),
    ("permit-unknown", {"permit": permit(permit__reference="test/2")}),
    ("permit-expired", {"day": dt.date(2027, 1, 1)}),
    ("permit-not-yet-valid", {"day": dt.date(2026, 1, 31)}),
    ("purpose-not-permitted", {"permit": permit(use__purposes=["education"])}),
    ("site-not-on-roster", {"roster": roster(("alpha",))}),
    ("site-not-on-roster", {"roster": roster(("alpha",)), "site": "alpha"}),
    ("site-not-on-roster", {"roster": EMPTY}),
    ("site-not-permitted", {"permit": permit(datasets=[{"site": "alpha", "dataset": "tiny"}])}),
    ("site-not-permitted", {"site": "gamma"}),
    ("dataset-not-permitted", {"site": "alpha", "dataset": "other"}),
    ("person-not-permitted", {"signer": EVE.public}),
    ("person-not-permitted", {"permit": permit(use__people=["ben"])}),
    (
        "permit-revoked",
        {"permit": permit(permit__state="REVOKED"), "day": dt.date(2030, 1, 1)},
    ),
]


def code_of(**changes: Any) -> str | None:
    reason = unlawful(**(LAWFUL | changes))
    return reason and reason[0]


@pytest.mark.parametrize("site", [None, "alpha"])
@pytest.mark.parametrize(
    "signer", [ADA.public, BEN.public, CONSORTIUM.public], ids=["ada", "ben", "root"]
)
def test_a_study_that_its_permit_covers_is_lawful(site: str | None, signer: str) -> None:
    assert unlawful(**(LAWFUL | {"site": site, "signer": signer})) is None
    assert code_of(site="alpha", dataset="tiny") is None


@pytest.mark.parametrize(("code", "changes"), BROKEN)
def test_each_rule_refuses_with_its_code(code: str, changes: dict[str, Any]) -> None:
    assert code_of(**changes) == code


def test_every_code_has_a_case() -> None:
    assert {code for code, _ in BROKEN} == UNLAWFUL


def test_a_permit_holds_on_its_first_and_its_last_day() -> None:
    assert code_of(day=dt.date(2026, 2, 1)) is None
    assert code_of(day=dt.date(2026, 12, 31)) is None
    assert not_in_force(permit(), dt.date(2026, 12, 31)) is None


def test_a_site_asks_only_about_its_own_data() -> None:
    alone = permit(datasets=[{"site": "alpha", "dataset": "tiny"}])
    assert code_of(permit=alone, site="alpha", dataset="tiny") is None
    assert code_of(permit=alone) == "site-not-permitted"


def test_a_person_must_be_on_the_roster_and_in_the_permit() -> None:
    named: Permit = permit(use__people=["ada"])
    people = roster()
    assert is_named(named, people, ADA.public, consortium=CONSORTIUM.public)
    assert not is_named(named, people, BEN.public, consortium=CONSORTIUM.public)
    assert not is_named(named, EMPTY, ADA.public, consortium=CONSORTIUM.public)
