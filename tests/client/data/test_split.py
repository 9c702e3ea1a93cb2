"""A patient is in one part, always the same, and nobody can tell which without the secret."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.data.cohort import prepare
from larrey_client.data.reading import Reading
from larrey_client.data.split import part_of, split_salt
from larrey_protocol.contract import Contract, Split
from larrey_protocol.errors import DataError
from tests.client.training.conftest import CONTRACT

SPLIT = Split(train=0.6, valid=0.1, test=0.3)
IDS = [f"p{i}" for i in range(4000)]


@given(st.permutations(IDS[:40]), st.binary(max_size=64))
def test_the_order_of_rows_changes_no_part(ids, salt):
    parts = dict(zip(IDS[:40], part_of(IDS[:40], salt, SPLIT), strict=True))
    assert all(parts[i] == part for i, part in zip(ids, part_of(ids, salt, SPLIT), strict=True))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=30), st.text(max_size=20))
def test_who_else_is_in_the_table_changes_no_part(others, patient):
    alone = part_of([patient], b"salt", SPLIT)[0]
    assert part_of([*others, patient], b"salt", SPLIT)[-1] == alone


def test_parts_have_their_shares():
    counts = np.bincount(part_of(IDS, b"salt", SPLIT), minlength=3) / len(IDS)
    for share, seen in zip((0.6, 0.1, 0.3), counts, strict=True):
        assert abs(seen - share) < 5 * math.sqrt(share * (1 - share) / len(IDS))  # 5 sigma


def test_an_empty_share_stays_empty():
    assert set(part_of(IDS, b"salt", Split(train=0.5, test=0.5))) == {0, 2}
    assert set(part_of(IDS, b"salt", Split(train=1))) == {0}
    assert set(part_of(IDS, b"salt", None)) == {0}


def test_site_secret_and_contract_salt_each_change_the_split():
    keys = {
        split_salt(SPLIT, b"one site"),
        split_salt(SPLIT, b"another"),
        split_salt(SPLIT.model_copy(update={"salt": "x"}), b"one site"),
    }
    assert len(keys) == 3
    assert len({part_of(IDS, key, SPLIT).tobytes() for key in keys}) == 3


def _table(rows: int) -> pa.Table:
    return pa.table(
        {
            "pid": [f"p{i // 2}" for i in range(rows)],  # two rows each
            "age": [20 + i % 60 for i in range(rows)],
            "cp": ["none"] * rows,
            "sick": [str(i % 2) for i in range(rows)],
        }
    )


def _contract(**split: float) -> Contract:
    unit = {"column": "pid", "max_rows": 2, "min_count": 4}
    return Contract.model_validate(CONTRACT | {"split": split, "unit": unit})


def test_the_parts_of_a_cohort_share_no_patient_and_are_all_of_it():
    contract, table = _contract(train=0.5, valid=0.2, test=0.3), _table(200)
    parts = [
        prepare(table, contract, Reading(b"key", part=part)).cohort
        for part in ("train", "valid", "test")
    ]
    assert sum(part.patients for part in parts) == 100
    assert sum(len(part.label) for part in parts) == 200  # each patient with both rows
    assert all((np.bincount(part.patient) == 2).all() for part in parts)


def test_training_gets_its_own_part_alone():
    train = prepare(_table(200), _contract(train=0.5, test=0.5), Reading(b"key")).cohort
    everybody = prepare(_table(200), Contract.model_validate(
        CONTRACT | {"unit": {"column": "pid", "max_rows": 2, "min_count": 4}}
    )).cohort  # fmt: skip
    assert 25 < train.patients < 75
    assert everybody.patients == 100


def test_an_empty_part_is_refused():
    with pytest.raises(DataError, match="part-empty"):
        prepare(_table(8), _contract(train=1.0), Reading(b"key", part="test"))
