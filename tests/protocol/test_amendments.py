"""What a new version changes: every value counts, and only patience needs no signature."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from pydantic import ValidationError

from larrey_protocol.amendments import Change, differences, needs_signature, require_child
from larrey_protocol.errors import Refusal
from larrey_protocol.study import Study
from tests.protocol.samples import study

PARENT = study()
Place = tuple[str | int, ...]
OWN = {("file", "study", "version"), ("file", "study", "parent")}
PATIENCE = {"file.rounds.deadline_s", "file.rounds.patience", "file.rounds.quorum"}


def leaves(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every single value of a JSON document."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*place, index))
    else:
        yield place


def dumped(of: Study) -> dict[str, Any]:
    return of.model_dump(mode="json", by_alias=True)


def candidates(value: Any) -> list[Any]:
    """Return values that differ, one of which may be valid in the same place."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1, value / 2]
        case str():
            return [value + "x", "sha256:" + "1" * 64, "F", "0.9.0"]
        case _:
            return ["x", 1, ["x"]]


def variants() -> Iterator[tuple[Place, Study]]:
    """Yield every valid study that differs from the parent in exactly one value."""
    for place in leaves(dumped(PARENT)):
        document = copy.deepcopy(dumped(PARENT))
        at: Any = document
        for step in place[:-1]:
            at = at[step]
        before = at[place[-1]]
        for value in candidates(before):
            if value == before:
                continue
            at[place[-1]] = value
            with suppress(ValidationError):
                yield place, Study.model_validate(document)


VARIANTS = [(place, child) for place, child in variants() if place not in OWN]


@pytest.mark.parametrize(("place", "child"), VARIANTS, ids=[str(place) for place, _ in VARIANTS])
def test_one_changed_value_anywhere_is_a_difference(place: Place, child: Study) -> None:
    changes = differences(PARENT, child)
    assert changes
    assert child.digest != PARENT.digest
    assert needs_signature(changes) or {change.place for change in changes} <= PATIENCE


def test_the_values_that_were_changed_are_most_of_a_study() -> None:
    assert len({place for place, _ in VARIANTS}) > 35
    assert {place[0] for place, _ in VARIANTS} == {"file", "contract"}


def numbers(of: Study) -> list[Place]:
    return [place for place, _ in VARIANTS if isinstance(value_at(of, place), float)]


def value_at(of: Study, place: Place) -> Any:
    value: Any = dumped(of)
    for step in place:
        value = value[step]
    return value


@given(st.sampled_from(numbers(PARENT)), st.floats(0.01, 100))
def test_any_other_number_is_a_difference(place: Place, number: float) -> None:
    document = copy.deepcopy(dumped(PARENT))
    at: Any = document
    for step in place[:-1]:
        at = at[step]
    assume(at[place[-1]] != number)
    at[place[-1]] = number
    try:
        child = Study.model_validate(document)
    except ValidationError:
        reject()
    assert [change.after for change in differences(PARENT, child)]
    assert child.digest != PARENT.digest


def test_the_same_study_has_no_differences() -> None:
    assert differences(PARENT, study()) == ()
    assert not needs_signature(())


@given(quorum=st.integers(1, 2), deadline=st.floats(1, 1000))
def test_only_patience_is_operational(quorum: int, deadline: float) -> None:
    child = study(rounds={"quorum": quorum, "deadline_s": deadline})
    assert needs_signature(differences(PARENT, child)) == (quorum < 2)


def test_a_quorum_may_rise_without_a_signature_and_not_fall() -> None:
    place = "file.rounds.quorum"
    assert Change(place, 2, 3).is_operational
    assert not Change(place, 3, 2).is_operational


@pytest.mark.parametrize(
    "sites",
    [
        [{"name": "beta", "patients": 300}, {"name": "alpha", "patients": 100}],
        [{"name": "alpha", "patients": 100}, {"name": "gamma", "patients": 300}],
        [{"name": "alpha", "patients": 101}, {"name": "beta", "patients": 300}],
    ],
)
def test_order_names_and_sizes_of_sites_are_differences(sites: list[dict[str, Any]]) -> None:
    assert needs_signature(differences(PARENT, study(sites=sites)))


def test_a_child_names_its_parent_and_the_next_version() -> None:
    require_child(PARENT, study(study__version=2, study__parent=PARENT.digest))


@pytest.mark.parametrize(
    "head",
    [
        {"study__version": 3},
        {"study__parent": "sha256:" + "0" * 64},
        {"study__parent": ""},
        {"study__name": "other"},
        {"study__permit": "test/2"},
    ],
)
def test_what_does_not_fit_is_no_amendment(head: dict[str, Any]) -> None:
    own = {"study__version": 2, "study__parent": PARENT.digest}
    with pytest.raises(Refusal, match="not-an-amendment"):
        require_child(PARENT, study(**(own | head)))
