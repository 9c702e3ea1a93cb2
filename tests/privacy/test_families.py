"""Which datasets share a budget: any patient in common decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_privacy.families import (
    Placement,
    overlap,
    place,
    require_own,
    require_set,
    union,
)
from larrey_protocol.errors import IntegrityError, Refusal


def patients(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(16, "big") for number in sorted(set(numbers)))


GROUPS = st.sets(st.integers(0, 40), max_size=20)


@given(GROUPS, GROUPS)
def test_the_overlap_is_what_two_sets_have_in_common(one, other):
    assert overlap(patients(*one), patients(*other)) == len(one & other)


def test_data_without_known_patients_are_a_family_of_their_own():
    assert place({"heart": patients(1, 2)}, patients(3, 4)).is_new
    assert place({}, patients(1)).is_new


def test_one_patient_in_common_joins_the_family():
    assert place({"heart": patients(1, 2), "lung": patients(7)}, patients(2, 3, 4)) == Placement(
        "heart", 1
    )


def test_data_that_bridge_two_families_are_refused():
    with pytest.raises(Refusal, match=r"heart, lung.*families-bridged"):
        place({"heart": patients(1, 2), "lung": patients(7)}, patients(2, 7))


def test_a_union_forgets_nobody_and_is_a_set():
    everybody = union(patients(1, 2), patients(3, 2), b"")
    assert everybody == patients(1, 2, 3)
    assert require_set(everybody) == 3


def test_new_patients_of_nobody_may_join():
    require_own("heart", {"heart": patients(1, 2), "lung": patients(7)}, patients(2, 3))
    require_own("heart", {"heart": patients(1, 2), "lung": patients(7)}, b"")


def test_a_new_patient_of_another_family_is_refused():
    with pytest.raises(Refusal, match="families-bridged"):
        require_own("heart", {"heart": patients(1, 2), "lung": patients(7)}, patients(1, 7))


def test_patients_that_a_signed_split_left_in_both_families_stay_in_both():
    families = {"heart": patients(1, 2, 3), "part": patients(2, 3)}
    require_own("part", families, patients(2, 3, 9))
    require_own("heart", families, patients(1, 2, 3))
    with pytest.raises(Refusal, match="families-bridged"):
        require_own("part", families, patients(1, 2))


@given(st.lists(GROUPS, max_size=6))
def test_families_placed_one_by_one_never_share_a_patient(groups):
    families: dict[str, bytes] = {}
    for number, group in enumerate(groups):
        try:
            placed = place(families, patients(*group))
        except Refusal:
            continue
        name = placed.family or f"family-{number}"
        families[name] = union(families.get(name, b""), patients(*group))
    sets = list(families.values())
    assert all(overlap(a, b) == 0 for i, a in enumerate(sets) for j, b in enumerate(sets) if i != j)


@pytest.mark.parametrize(
    "data", [b"x", patients(1) + b"x", patients(2) + patients(1), patients(1) * 2]
)
def test_hashes_that_are_not_whole_sorted_and_distinct_are_refused(data):
    with pytest.raises(IntegrityError, match="patients-malformed"):
        require_set(data)
    assert require_set(patients(3, 1, 2)) == 3
