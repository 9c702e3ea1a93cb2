"""Each kind of outcome: which number a row gets, and which tables are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from larrey_client.data.cells import Cells
from larrey_client.data.checks import check, check_names
from larrey_client.data.cohort import prepare
from larrey_client.datasets import _report
from larrey_protocol.contract import Contract
from tests.client.training.conftest import CONTRACT
from tests.protocol.test_labels import LABELS

NUMBER, SURVIVAL = LABELS["number"], LABELS["survival"]


def contract_of(label: dict[str, Any]) -> Contract:
    unit = {"column": "pid", "min_count": 1, "duplicates": "allow"}
    columns = [{"name": "x", "kind": "number", "range": [0, 1], "missing_max": 0}]
    return Contract.model_validate({**CONTRACT, "unit": unit, "columns": columns, "label": label})


def table_of(**columns: list[Any]) -> pa.Table:
    rows = len(next(iter(columns.values())))
    return pa.table({"pid": [f"p{i}" for i in range(rows)], "x": [0.5] * rows, **columns})


def values_of(label: dict[str, Any], **columns: list[Any]) -> list[float]:
    return prepare(table_of(**columns), contract_of(label)).cohort.label.tolist()


def rules_of(label: dict[str, Any], **columns: list[Any]) -> set[str]:
    contract = contract_of(label)
    return {found.rule for found in check(contract, Cells(contract, table_of(**columns)))}


def test_a_class_is_its_place_in_the_contract() -> None:
    assert values_of(LABELS["class"], y=["I", "3", " 2 ", "1"]) == [0, 2, 1, 0]


def test_a_number_is_counted_from_the_center_in_scales() -> None:
    assert values_of(NUMBER, y=["10", "20.0", "0"]) == [0, 2, -2]
    assert values_of(NUMBER, y=[10, 20, 0]) == [0, 2, -2]


@pytest.mark.parametrize(
    ("days", "died", "value"),
    [
        (0, "1", 1),  # event in the first interval
        (29, "1", 1),
        (30, "1", 3),  # an edge belongs to the interval that begins there
        (729.5, "1", 7),
        (730, "1", 8),  # an event from the last edge on counts as none
        (14, "0", 0),  # last seen before the first interval's middle
        (15, "0", 2),
        (59, "0", 2),
        (60, "0", 4),
        (9999, "0", 8),
    ],
)
def test_a_time_is_the_intervals_lived_through_and_the_event(days, died, value) -> None:
    assert values_of(SURVIVAL, days=[days], died=[died]) == [value]


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6),
    st.lists(st.tuples(st.floats(0, 400), st.booleans()), min_size=1, max_size=20),
)
def test_times_are_encoded_as_a_plain_loop_says(widths, seen) -> None:
    edges = np.cumsum(widths).astype(float).tolist()

    def by_hand(time: float, died: bool) -> float:
        begin, lived = 0.0, 0
        for end in edges:
            if died and time < end:
                return 2 * lived + 1
            if time < (end if died else (begin + end) / 2):
                return 2 * lived
            begin, lived = end, lived + 1
        return 2 * lived

    label = {**SURVIVAL, "edges": edges}
    columns = {"days": [t for t, _ in seen], "died": [str(int(d)) for _, d in seen]}
    assert values_of(label, **columns) == [by_hand(*one) for one in seen]


@pytest.mark.parametrize(
    ("label", "columns", "rules"),
    [
        (LABELS["class"], {"y": ["1", "2", "3"]}, set()),
        (LABELS["class"], {"y": ["1", "4", None]}, {"label-unknown"}),
        ({**LABELS["class"], "min_count": 1}, {"y": ["1", "2", "2"]}, {"too-few-outcomes"}),
        ({**LABELS["class"], "min_count": 1}, {"y": ["1", "2", "3"]}, set()),
        (NUMBER, {"y": ["0", "60"]}, set()),
        (NUMBER, {"y": ["12", "soon"]}, {"label-unknown"}),
        (NUMBER, {"y": [12.0, None]}, {"label-unknown"}),
        (NUMBER, {"y": [12.0, 61.0]}, {"value-out-of-range"}),
        (NUMBER, {"y": [12.0, float("inf")]}, {"value-out-of-range"}),
        ({**NUMBER, "median_range": [5, 9]}, {"y": [1, 6, 60]}, set()),
        ({**NUMBER, "median_range": [5, 9]}, {"y": [1, 10, 60]}, {"median-out-of-range"}),
        (SURVIVAL, {"days": [1, 2], "died": ["1", "0"]}, set()),
        (SURVIVAL, {"days": [1, -2], "died": ["1", "0"]}, {"value-out-of-range"}),
        (SURVIVAL, {"days": [1.0, float("inf")], "died": ["1", "0"]}, {"value-out-of-range"}),
        (SURVIVAL, {"days": ["1", "x"], "died": ["1", "0"]}, {"label-unknown"}),
        (SURVIVAL, {"days": [1, 2], "died": ["1", "maybe"]}, {"label-unknown"}),
        (
            {**SURVIVAL, "min_count": 1},
            {"days": [1, 800], "died": ["0", "1"]},
            {"too-few-outcomes"},
        ),
        ({**SURVIVAL, "min_count": 1}, {"days": [1, 800], "died": ["1", "1"]}, set()),
        (
            {**SURVIVAL, "event_range": [0.6, 1]},
            {"days": [1, 2], "died": ["1", "0"]},
            {"prevalence-out-of-range"},
        ),
        (
            {**SURVIVAL, "median_range": [100, 900]},
            {"days": [3, 4], "died": ["1", "0"]},
            {"median-out-of-range"},
        ),
    ],
)
def test_every_declaration_catches_what_it_was_made_for(label, columns, rules) -> None:
    assert rules_of(label, **columns) == rules


def test_the_share_of_one_class_is_bounded() -> None:
    low, *others = LABELS["class"]["classes"]
    label = {**LABELS["class"], "classes": [{**low, "share_range": [0.1, 0.5]}, *others]}
    assert rules_of(label, y=["1", "2", "3"]) == set()
    assert rules_of(label, y=["1", "1", "3"]) == {"prevalence-out-of-range"}
    assert rules_of(label, y=["2", "2", "3"]) == {"prevalence-out-of-range"}


def test_a_column_of_the_outcome_that_is_not_there_is_named() -> None:
    contract, table = contract_of(SURVIVAL), table_of(days=[1, 2])
    missing = check_names(contract, table.column_names)
    assert [one.column for one in missing] == ["died"]
    assert check(contract, Cells(contract, table)) == []  # nothing else is looked for


def test_a_site_is_told_its_rows_of_each_outcome_in_bands() -> None:
    contract = contract_of(SURVIVAL)
    cells = Cells(contract, table_of(days=[1, 2, 800], died=["1", "0", "1"]))
    assert _report(cells, [], 0)["counts"] == {
        "rows": "1-10",
        "excluded": "no",
        "units": "1-10",
        "event_rows": "1-10",
        "no_event_rows": "1-10",
    }
