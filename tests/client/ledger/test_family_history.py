"""Which budget a dataset uses follows from what the officer signed, or nothing starts."""

from __future__ import annotations

import pytest

from larrey_client.families import family_of, refresh, require_signed
from larrey_client.officer import Officer
from larrey_protocol.errors import IntegrityError
from tests.client.ledger.conftest import State, make_officer
from tests.client.ledger.test_families import add, patients, split

OF_LUNG = "(SELECT {} FROM families WHERE seq = 2)"
NEXT = "INSERT INTO families SELECT 7, {} FROM families WHERE seq = {}"


@pytest.fixture
def placed(empty: State, dpo: Officer) -> State:
    """Return a state with two families, one of which grew and lost a dataset to an order."""
    add(empty, dpo, "heart", 1, 2)
    add(empty, dpo, "lung", 7, 8)
    add(empty, dpo, "copy", 2, 3)
    refresh(empty.store, "heart", patients(4))
    add(empty, dpo, "late", 4)
    split(empty, dpo, "late", "part")
    return empty


def changed(state: State, *statements: str) -> None:
    """Change the table as whoever can write the file can: without its triggers."""
    database = state.store.records.connection
    for verb in ("update", "delete", "replace"):
        database.execute(f"DROP TRIGGER families_no_{verb}")
    for statement in statements:
        database.execute(statement)


def test_what_was_signed_is_where_the_datasets_are(placed: State, dpo: Officer) -> None:
    require_signed(placed.store, {dpo.person.key})
    found = {name: family_of(placed.store, name) for name in ("heart", "lung", "copy", "late")}
    assert found == {"heart": "heart", "lung": "lung", "copy": "heart", "late": "part"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE families SET family = 'copy' WHERE dataset = 'copy'",
        "UPDATE families SET family = 'lung' WHERE dataset = 'copy'",
        "UPDATE families SET family = 'heart' WHERE dataset = 'lung'",
        "UPDATE families SET family = 'lung' WHERE seq = 4",  # what grew
        "UPDATE families SET family = 'other' WHERE seq = 6",  # what was split
        "UPDATE families SET dataset = 'lung' WHERE seq = 6",
        "UPDATE families SET document = '' WHERE seq = 6",
        f"UPDATE families SET patients = {OF_LUNG.format('patients')} WHERE seq = 1",
        f"UPDATE families SET document = {OF_LUNG.format('document')} WHERE seq = 3",
        "DELETE FROM families WHERE seq = 6",
        "DELETE FROM families WHERE seq = 3",
        "DELETE FROM families WHERE dataset = 'late'",
        NEXT.format("'copy', 'lung', patients, ''", 3),
        NEXT.format("'copy', 'lung', patients, document", 3),
        NEXT.format("'new', 'new', patients, ''", 3),
        NEXT.format("'heart', 'heart', patients, ''", 2),
    ],
)
def test_a_row_that_was_edited_added_or_removed_is_refused(
    placed: State, dpo: Officer, statement: str
) -> None:
    changed(placed, statement)
    with pytest.raises(IntegrityError, match="families-altered"):
        require_signed(placed.store, {dpo.person.key})


def test_nobody_but_an_officer_places_a_dataset(empty: State, dpo: Officer) -> None:
    other = make_officer("o.ther")
    add(empty, other, "heart", 1, 2)
    with pytest.raises(IntegrityError, match="families-altered"):
        require_signed(empty.store, {dpo.person.key})
    require_signed(empty.store, {dpo.person.key, other.person.key})


def test_a_table_that_was_altered_places_nobody_else(placed: State, dpo: Officer) -> None:
    changed(placed, "UPDATE families SET family = 'copy' WHERE dataset = 'copy'")
    for act in (
        lambda: add(placed, dpo, "third", 9),
        lambda: refresh(placed.store, "copy", patients(2, 3, 5)),
        lambda: split(placed, dpo, "copy", "apart"),
    ):
        with pytest.raises(IntegrityError, match="families-altered"):
            act()
