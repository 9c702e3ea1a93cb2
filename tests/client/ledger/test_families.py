"""A dataset's place among the families of a site, on record and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from larrey_client import officer as orders
from larrey_client.dossier import read_dossier
from larrey_client.families import (
    family_of,
    is_registered,
    patients_digest,
    refresh,
    register,
    unit_text,
)
from larrey_client.officer import Officer, make_order
from larrey_client.settings import Dataset
from larrey_privacy.ledger_view import receipt_flags
from larrey_protocol.decisions import Registration
from larrey_protocol.errors import IntegrityError, LarreyError, Refusal
from larrey_protocol.signed import Signed, sign
from tests.client.ledger.conftest import COST, FILTER, STUDY, UNIT, State, make_officer


def patients(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(16, "big") for number in sorted(numbers))


def dataset(name: str, epsilon: float = 8.0) -> Dataset:
    return Dataset(name=name, path=Path(f"{name}.csv"), unit="patient_id", epsilon=epsilon)


def registration(dpo: Officer, data: Dataset, people: bytes, **change: object) -> Signed:
    document = Registration(
        site="alpha",
        dataset=data.name,
        unit="patient_id",
        patients=patients_digest(people),
        epsilon=data.epsilon,
        delta=data.delta,
        person=dpo.person.name,
        at=1.0,
    )
    return sign(document.model_copy(update=change), dpo.key)


def add(state: State, dpo: Officer, name: str, *numbers: int, epsilon: float = 8.0) -> str:
    data, people = dataset(name, epsilon), patients(*numbers)
    signed = registration(dpo, data, people)
    return register(state.store, data, people, signed, [dpo.person], site="alpha")


def test_a_dataset_that_nobody_registered_is_a_family_of_its_own_name(empty: State) -> None:
    assert family_of(empty.store, "heart") == "heart"
    assert not is_registered(empty.store, "heart")


def test_a_copy_under_another_name_shares_the_budget(empty: State, dpo: Officer) -> None:
    assert add(empty, dpo, "heart", 1, 2, 3) == "heart"
    assert add(empty, dpo, "renamed", 3, 4, epsilon=50.0) == "heart"
    assert family_of(empty.store, "renamed") == "heart"
    account = empty.store.ledger.account("heart")
    assert account is not None
    assert (account.filter, account.unit) == (FILTER, UNIT)  # the first one's stands
    assert empty.store.ledger.datasets() == ("heart",)


def test_other_patients_are_another_family(empty: State, dpo: Officer) -> None:
    add(empty, dpo, "heart", 1, 2)
    assert add(empty, dpo, "lung", 3, 4) == "lung"
    assert empty.store.ledger.datasets() == ("heart", "lung")


def test_data_that_bridge_two_families_are_refused_and_leave_nothing(
    empty: State, dpo: Officer
) -> None:
    add(empty, dpo, "heart", 1, 2)
    add(empty, dpo, "lung", 3, 4)
    head = empty.store.ledger_head, empty.store.audit_head
    with pytest.raises(Refusal, match="families-bridged"):
        add(empty, dpo, "both", 2, 3)
    assert not is_registered(empty.store, "both")
    assert (empty.store.ledger_head, empty.store.audit_head) == head


def test_a_dataset_that_spent_on_its_own_cannot_join_another_family(
    state: State, dpo: Officer
) -> None:
    add(state, dpo, "lung", 1, 2)
    with pytest.raises(Refusal, match="families-bridged"):
        add(state, dpo, "heart", 2, 3)  # has a budget since a study was approved
    assert add(state, dpo, "heart", 3) == "heart"  # and keeps it where nobody else has its patients


def test_a_family_counts_one_kind_of_unit(empty: State, dpo: Officer) -> None:
    add(empty, dpo, "heart", 1)
    other = dataset("copy").model_copy(update={"unit": "eye"})
    signed = registration(dpo, other, patients(1), unit="eye")
    with pytest.raises(Refusal, match="unit-differs"):
        register(empty.store, other, patients(1), signed, [dpo.person], site="alpha")
    assert unit_text("patient_id") == UNIT


@pytest.mark.parametrize(
    "change",
    [
        {"site": "beta"},
        {"dataset": "lung"},
        {"epsilon": 3.0},
        {"delta": 1e-6},
        {"patients": STUDY},
        {"unit": "eye"},
        {"person": "somebody.else"},
    ],
)
def test_what_was_not_signed_is_not_registered(
    empty: State, dpo: Officer, change: dict[str, object]
) -> None:
    signed = registration(dpo, dataset("heart"), patients(1), **change)
    with pytest.raises(Refusal, match="registration-differs"):
        register(empty.store, dataset("heart"), patients(1), signed, [dpo.person], site="alpha")


def test_registering_takes_the_officers_key(empty: State, dpo: Officer) -> None:
    it = make_officer("i.tech", "it")
    signed = registration(it, dataset("heart"), patients(1))
    for people, code in (([dpo.person], "person-unknown"), ([it.person], "role-not-allowed")):
        with pytest.raises(Refusal, match=code):
            register(empty.store, dataset("heart"), patients(1), signed, people, site="alpha")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM documents",
        "UPDATE documents SET signed = CAST(replace(signed, '8.0', '9.0') AS BLOB)",
        "UPDATE documents SET signed = CAST(replace(signed, 'signer', 'singer') AS BLOB)",
    ],
)
def test_a_registration_that_was_changed_or_is_gone_is_found(
    empty: State, dpo: Officer, change: str
) -> None:
    add(empty, dpo, "heart", 1, 2)
    database = empty.store.records.connection
    assert read_dossier(empty.store.records, dpo.person.key).altered == ""
    for verb in ("update", "delete"):
        database.execute(f"DROP TRIGGER documents_no_{verb}")
    assert database.execute(change).rowcount == 1
    assert read_dossier(empty.store.records, dpo.person.key).altered


def test_a_dataset_is_placed_once(empty: State, dpo: Officer) -> None:
    add(empty, dpo, "heart", 1)
    with pytest.raises(Refusal, match="already-registered"):
        add(empty, dpo, "heart", 1)


def test_new_patients_are_added_and_nobody_leaves(empty: State, dpo: Officer) -> None:
    add(empty, dpo, "heart", 1, 2)
    refresh(empty.store, "heart", patients(2, 3))
    empty.reopen()
    assert add(empty, dpo, "late", 3) == "heart"
    assert add(empty, dpo, "early", 1) == "heart"


def test_the_same_patients_again_write_nothing(empty: State, dpo: Officer) -> None:
    add(empty, dpo, "heart", 1, 2)
    head = empty.store.audit_head
    refresh(empty.store, "heart", patients(1))
    refresh(empty.store, "unregistered", patients(9))
    assert empty.store.audit_head == head


def test_a_dataset_that_gained_another_familys_patient_is_refused(
    empty: State, dpo: Officer
) -> None:
    add(empty, dpo, "heart", 1, 2)
    add(empty, dpo, "lung", 3)
    with pytest.raises(Refusal, match="families-bridged"):
        refresh(empty.store, "heart", patients(1, 3))


def test_hashes_are_readable_by_the_node_only(empty: State, dpo: Officer) -> None:
    add(empty, dpo, "heart", 1, 2)
    folder = empty.folder / "families"
    (file,) = folder.iterdir()
    assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert file.read_bytes() == patients(1, 2)


@pytest.mark.parametrize("damage", [b"", b"x" * 16])
def test_changed_hashes_place_nobody(empty: State, dpo: Officer, damage: bytes) -> None:
    add(empty, dpo, "heart", 1, 2)
    (file,) = (empty.folder / "families").iterdir()
    file.write_bytes(damage)
    with pytest.raises(IntegrityError, match="families-damaged"):
        add(empty, dpo, "copy", 1)


def test_hashes_that_are_no_set_are_refused(empty: State, dpo: Officer) -> None:
    for call in (lambda: add_raw(empty, dpo), lambda: refresh(empty.store, "heart", b"x")):
        with pytest.raises(LarreyError, match="patients-malformed"):
            call()


def add_raw(state: State, dpo: Officer) -> None:
    signed = registration(dpo, dataset("heart"), b"x")
    register(state.store, dataset("heart"), b"x", signed, [dpo.person], site="alpha")


def split(state: State, dpo: Officer, name: str, into: str) -> Signed:
    subject = orders.split_subject(name, into)
    order = make_order(state.store, "split-family", subject, dpo, at=2.0)
    orders.split(state.store, name, into, order, [dpo.person], site="alpha")
    return order


def test_a_split_dataset_spends_on_its_own_and_both_say_so(state: State, dpo: Officer) -> None:
    add(state, dpo, "heart", 1, 2)
    add(state, dpo, "copy", 2, 3)
    state.work(2)
    split(state, dpo, "copy", "part")
    assert (family_of(state.store, "copy"), family_of(state.store, "heart")) == ("part", "heart")
    assert state.store.ledger.spent() == {"heart": 2 * COST, "part": 2 * COST}
    for family in ("heart", "part"):
        account = state.store.ledger.account(family)
        assert account is not None
        assert receipt_flags(account) == ("family-reset",)
    refresh(state.store, "copy", patients(2, 3, 4))  # who is in both by order may stay
    assert add(state, dpo, "new", 4) == "part"
    with pytest.raises(Refusal, match="families-bridged"):
        add(state, dpo, "third", 2)


def test_an_order_counts_once(state: State, dpo: Officer) -> None:
    order = make_order(state.store, "split-family", "heart", dpo, at=2.0)
    orders.reset(state.store, "heart", order, [dpo.person], site="alpha")
    with pytest.raises(Refusal, match="order-repeated"):
        orders.reset(state.store, "heart", order, [dpo.person], site="alpha")
    account = state.store.ledger.account("heart")
    assert account is not None
    assert account.resets == 1


def test_what_was_never_placed_cannot_be_split(state: State, dpo: Officer) -> None:
    head = state.store.ledger_head
    with pytest.raises(Refusal, match="dataset-unregistered"):
        split(state, dpo, "heart", "part")
    assert state.store.ledger_head == head
