"""Each declaration of a contract catches what it was made for, and nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.data.cells import Cells
from larrey_client.data.checks import check, check_names
from larrey_client.data.violation import Violation, band, unmet
from larrey_protocol.contract import Contract
from larrey_protocol.errors import DataError
from tests.client.training.conftest import CONTRACT

GLUCOSE: dict[str, Any] = {
    "name": "glucose",
    "kind": "number",
    "unit": "mmol/L",
    "range": [1, 500],  # wide enough for both units: only the median tells
    "median_range": [3, 12],
    "missing_max": 0.5,
    "steps": [{"step": "impute", "value": 5, "from": "contract"}],
}


def _contract(**changes: Any) -> Contract:
    base = {**CONTRACT, "columns": [GLUCOSE], "unit": {"column": "pid", "min_count": 1}}
    return Contract.model_validate({**base, **changes})


def _rules(contract: Contract, **columns: list[Any]) -> set[str]:
    rows = max(map(len, columns.values()))
    table = {
        "pid": [f"p{i}" for i in range(rows)],
        "glucose": [4.0 + i / 10 for i in range(rows)],
        "sick": ["1", "0"] * (rows // 2) + ["0"] * (rows % 2),
    }
    return {found.rule for found in check(contract, Cells(contract, pa.table(table | columns)))}


MMOL = [4.2, 5.0, 5.6, 7.9, None, 11.0]


def test_values_in_mg_per_dl_are_told_from_mmol_per_l_by_their_median():
    assert _rules(_contract(), glucose=MMOL) == set()
    assert _rules(_contract(), glucose=[v and v * 18.0 for v in MMOL]) == {"median-out-of-range"}


@given(st.lists(st.floats(3, 12), min_size=1, max_size=30))
def test_a_site_whose_values_are_all_plausible_meets_the_median(values):
    assert "median-out-of-range" not in _rules(_contract(), glucose=values)


def test_a_column_of_missing_cells_has_no_median_and_says_what_is_wrong():
    assert _rules(_contract(), glucose=[None] * 6) == {"too-many-missing"}


@pytest.mark.parametrize(
    ("label", "sick", "rules"),
    [
        ({"prevalence_range": [0.1, 0.6]}, ["1", "0", "0", "0"], set()),
        ({"prevalence_range": [0.3, 0.6]}, ["1", "0", "0", "0"], {"prevalence-out-of-range"}),
        ({"prevalence_range": [0, 0.2]}, ["1", "0", "0", "0"], {"prevalence-out-of-range"}),
        ({"min_count": 1}, ["1", "0", "0", "0"], set()),
        ({"min_count": 2}, ["1", "0", "0", "0"], {"too-few-outcomes"}),
        ({"min_count": 1}, ["1", "1", "1", "1"], {"too-few-outcomes"}),
    ],
)
def test_the_outcome_is_neither_too_rare_nor_too_common(label, sick, rules):
    contract = _contract(label={**CONTRACT["label"], **label})
    assert _rules(contract, sick=sick) == rules


def test_outcomes_are_counted_in_patients_not_in_rows():
    contract = _contract(
        label={**CONTRACT["label"], "min_count": 2},
        unit={"column": "pid", "max_rows": 3, "min_count": 1},
    )
    patients = {"pid": ["a", "a", "a", "b", "c"], "sick": ["1", "1", "1", "0", "0"]}
    assert _rules(contract, **patients) == {"too-few-outcomes"}


@pytest.mark.parametrize(
    ("duplicates", "values", "rules"),
    [
        ("refuse", [5.0, 5.0, 6.0], {"duplicate-rows"}),
        ("refuse", [None, None, 6.0, 7.0], {"duplicate-rows"}),
        ("allow", [5.0, 5.0, 6.0], set()),
        ("refuse", [5.0, 5.1, 6.0], set()),
    ],
)
def test_a_repeated_row_of_a_patient_is_refused_unless_allowed(duplicates, values, rules):
    unit = {"column": "pid", "max_rows": 2, "min_count": 1, "duplicates": duplicates}
    rows = {"pid": ["a", "a", "b", "b"][: len(values)], "sick": ["0"] * len(values)}
    assert _rules(_contract(unit=unit), **rows, glucose=values) == rules


def test_equal_rows_of_two_patients_are_two_patients():
    assert _rules(_contract(), pid=["a", "b"], glucose=[5.0, 5.0], sick=["0", "0"]) == set()


def test_all_missing_columns_are_named_at_once():
    found = check_names(_contract(), ["pid", "glucos"])
    assert [violation.column for violation in found] == ["glucose", "sick"]
    assert "Is it 'glucos'" in found[0].what


@given(st.integers(0, 10**6))
def test_a_band_never_tells_a_small_number(count):
    assert band(count) in {"no", "1-10", "11-50", "51-200", "201-1000", "over 1000"}
    assert (band(count) == "no") == (count == 0)


def test_many_violations_make_a_message_of_bounded_length():
    error = unmet([Violation("a-rule", f"c{i}", "is wrong") for i in range(10_000)])
    assert isinstance(error, DataError)
    assert error.code == "a-rule"
    assert len(error.message) < 3000
    assert "9960 more" in error.message
