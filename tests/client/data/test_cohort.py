"""A hospital's table becomes numbers as the contract says, or is refused by the rule it breaks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_client.data.cells import Cells
from larrey_client.data.checks import RULES, check
from larrey_client.data.cohort import cached_cohort, examine, load, load_cohort, scan
from larrey_client.data.cohort import prepare as prepare_all
from larrey_client.data.identity import patient_hash, unpack_hashes
from larrey_client.data.reading import Reading
from larrey_client.data.sources import connect
from larrey_client.data.steps import number_features, unit_rows
from larrey_privacy.cohort import Cohort
from larrey_protocol.contract import Column, Contract
from larrey_protocol.errors import DataError

HEADER = "pid,age,cp,sick\n"
FOUR = "".join(f"{name},1,none,0\n" for name in "abcd")
GOOD = [("a", "20", "typical", "1"), ("b", "80", "none", "0"), ("c", "", "", "0")]
GOOD += [("d", "110", "none", "1")]


def _table(rows: list[tuple[str | None, ...]], names: str = "pid age cp sick") -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * 4
    return pa.table(
        {n: pa.array(c, pa.string()) for n, c in zip(names.split(), columns, strict=True)}
    )


def prepare(table: pa.Table, contract: Contract) -> Cohort:
    return prepare_all(table, contract).cohort


def _with(row: int, column: int, cell: str) -> list[tuple[str, ...]]:
    rows = [list(r) for r in GOOD]
    rows[row][column] = cell
    return [tuple(r) for r in rows]


def _changed(contract: Contract, **changes: object) -> Contract:
    return Contract.model_validate(contract.model_dump(by_alias=True) | changes)


def test_features_equal_values_computed_by_hand(contract):
    cohort = prepare(_table(GOOD), contract)
    # age scaled from [20, 80] after imputing 50 and clipping at 90; flag; cp in declared order
    expected = [[-1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0], [4 / 3, 0, 0, 1]]
    np.testing.assert_allclose(cohort.features, np.float32(expected), rtol=1e-6)
    assert contract.feature_names() == ("age", "age?", "cp=typical", "cp=none")
    assert cohort.label.tolist() == [1, 0, 0, 1]
    assert cohort.patient.tolist() == [0, 1, 2, 3]


def test_unit_rows_divides_by_each_rows_own_norm(contract):
    cohort = prepare(_table(GOOD), _changed(contract, rows={"unit_norm": True}))
    np.testing.assert_allclose(
        cohort.features[0], [-math.sqrt(0.5), 0, math.sqrt(0.5), 0], rtol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(cohort.features, axis=1), 1, rtol=1e-6)


def test_a_row_of_zeros_stays_zero():
    assert unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0, 0], [0.6, 0.8]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, [1, 0, 0]), (9.99, [1, 0, 0]), (10.0, [0, 1, 0]), (20.0, [0, 0, 1]), (50.0, [0, 0, 1])],
)
def test_a_bin_holds_its_lower_edge(value, expected):
    steps = [{"step": "bin", "edges": [10, 20], "from": "contract"}]
    column = Column(name="x", kind="number", range=(0, 99), missing_max=0, steps=steps)
    features = number_features(column, np.array([value]), np.array([False]))
    assert features.tolist() == [expected]


def test_log_takes_its_offset():
    column = Column(
        name="x", kind="number", range=(0, 99), missing_max=0, steps=[{"step": "log", "offset": 1}]
    )
    features = number_features(column, np.array([math.e - 1]), np.array([False]))
    assert features[0, 0] == pytest.approx(1.0)


@given(st.lists(st.one_of(st.none(), st.floats(0, 120)), min_size=4, max_size=30))
def test_features_are_finite_bounded_and_keep_the_order_of_ages(ages):
    column = Column.model_validate(
        {
            "name": "age",
            "kind": "number",
            "range": [0, 120],
            "steps": [
                {"step": "impute", "value": 50, "from": "contract"},
                {"step": "scale", "low": 0, "high": 120, "from": "contract"},
            ],
        }
    )
    values = np.array([50.0 if a is None else a for a in ages])
    is_missing = np.array([a is None for a in ages])
    features = number_features(column, np.where(is_missing, np.nan, values), is_missing)[:, 0]
    assert np.isfinite(features).all()
    assert (abs(features) <= 1).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(features[order]) >= 0).all()


@pytest.mark.parametrize(
    ("rows", "codes", "column"),
    [
        ([], {"data-empty"}, ""),
        (_with(0, 0, ""), {"unit-missing", "too-few-units"}, "pid"),
        (_with(0, 0, "b"), {"rows-per-unit", "too-few-units"}, "pid"),
        (GOOD[:3], {"too-few-units"}, "pid"),
        (_with(0, 3, "2"), {"label-unknown"}, "sick"),
        (_with(0, 3, ""), {"label-unknown"}, "sick"),
        (_with(0, 1, "121"), {"value-out-of-range"}, "age"),
        (_with(0, 1, "1e400"), {"value-out-of-range"}, "age"),
        (_with(0, 1, "forty"), {"not-a-number"}, "age"),
        (_with(0, 1, "4,5"), {"not-a-number"}, "age"),
        (_with(0, 1, "nan"), {"not-a-number"}, "age"),
        (_with(0, 1, "inf"), {"not-a-number"}, "age"),
        (_with(0, 2, "atypical"), {"category-unknown"}, "cp"),
        ([(p, "NA", c, s) for p, _, c, s in GOOD], {"too-many-missing"}, "age"),
        ([(p, a, "", s) for p, a, _, s in GOOD], {"too-many-missing"}, "cp"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused_by_its_code(contract, rows, codes, column):
    found = check(contract, Cells(contract, _table(rows)))
    assert {violation.rule for violation in found} == codes
    with pytest.raises(DataError) as caught:
        prepare(_table(rows), contract)
    assert caught.value.code == (codes.pop() if len(codes) == 1 else "contract-unmet")
    assert column in caught.value.message


def test_every_failing_rule_is_named_not_only_the_first(contract):
    rows = [("a", "777", "else", "9"), *GOOD[1:]]
    with pytest.raises(DataError, match="contract-unmet") as caught:
        prepare(_table(rows), contract)
    for name in ("age", "cp", "sick", "value-out-of-range", "category-unknown", "label-unknown"):
        assert name in caught.value.message


def test_a_refusal_counts_in_bands_and_never_quotes_a_value(contract):
    rows = [("a", "777", "none", "0"), ("b", "778", "none", "0"), *GOOD[2:]]
    with pytest.raises(DataError, match="1-10 rows") as caught:
        prepare(_table(rows), contract)
    assert "77" not in str(caught.value)


def test_a_step_without_a_result_is_refused(contract):
    column = {"name": "age", "kind": "number", "range": [0, 120]}
    steps = [
        {"step": "impute", "value": 1, "from": "contract"},
        {"step": "log", "offset": 0},
    ]
    broken = _changed(contract, columns=[column | {"steps": steps}])
    with pytest.raises(DataError, match="feature-not-finite"):
        prepare(_table(_with(0, 1, "0")), broken)


@pytest.mark.parametrize("name", ["nir", "INS", "birth_date", "Birth-Date", "address"])
def test_a_contract_that_asks_for_an_identifier_is_refused(contract, table, name):
    column = {
        "name": name,
        "kind": "category",
        "values": ["1", "2"],
        "steps": [{"step": "one-hot"}],
    }
    with pytest.raises(DataError, match="identifier-column"):
        load(connect(table), _changed(contract, columns=[column]))


def test_missing_codes_count_as_missing_in_any_spelling_of_the_number(contract):
    cohort = prepare(_table(_with(0, 1, "-1.0")), contract)
    assert cohort.features[0].tolist() == [0, 1, 1, 0]


def test_several_rows_of_a_patient_share_his_number(contract):
    unit = {"name": "patient", "column": "pid", "max_rows": 2, "min_count": 2}
    rows = [("b", "20", "none", "0"), ("a", "30", "none", "0"), ("b", "40", "none", "1")]
    cohort = prepare(_table(rows), _changed(contract, unit=unit))
    assert cohort.patient.tolist() == [0, 1, 0]


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("a.csv", "", "data-empty"),
        ("a.csv", HEADER, "data-empty"),
        ("a.txt", HEADER, "data-format"),
        ("a.csv", "pid,agee,cp,sick\n" + FOUR, "column-missing"),
        ("a.csv", "pid,age,age,cp,sick\n" + FOUR.replace(",none", ",1,none"), "column-missing"),
        ("a.csv", "pid,agee,cp,sick\na,1,none,0\n", "contract-unmet"),
        ("a.csv", HEADER + "a,1,none\n", "data-unreadable"),
        ("a.parquet", "no parquet", "data-unreadable"),
    ],
)
def test_a_file_that_cannot_serve_is_refused_by_its_code(contract, tmp_path, name, text, code):
    with pytest.raises(DataError) as caught:
        load_cohort(_write(tmp_path / name, text), contract)
    assert caught.value.code == code


def test_a_file_that_is_not_there_is_refused(contract, tmp_path):
    with pytest.raises(DataError, match="data-missing"):
        load_cohort(tmp_path / "none.csv", contract)


def test_a_missing_column_names_itself_and_the_nearest(contract, tmp_path):
    path = _write(tmp_path / "a.csv", "pid,agee,cp,sick\na,1,none,0\n")
    with pytest.raises(DataError, match=r"'age': it is not in the file. Is it 'agee'"):
        load_cohort(path, contract)


def test_only_the_contracts_columns_are_kept(contract, table):
    cells, violations, _ = examine(connect(table), contract)
    assert not violations
    assert set(cells.table.column_names) == {"pid", "age", "cp", "sick"}


def test_parquet_with_typed_columns_gives_what_csv_gives(contract, tmp_path):
    csv = _write(tmp_path / "a.csv", "\ufeff" + HEADER + "\n".join(",".join(r) for r in GOOD))
    typed = pa.table(
        {
            "pid": ["a", "b", "c", "d"],
            "age": pa.array([20.0, 80.0, None, 110.0]),
            "cp": pa.array(["typical", "none", None, "none"]).dictionary_encode(),
            "sick": pa.array([1, 0, 0, 1]),
            "extra": [1, 2, 3, 4],
        }
    )
    pq.write_table(typed, tmp_path / "a.parquet")
    one, other = load_cohort(csv, contract), load_cohort(tmp_path / "a.parquet", contract)
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.label, other.label)


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(contract, table):
    text = contract.model_dump_json(by_alias=True)
    first = cached_cohort(table, text)
    assert cached_cohort(table, text) is first
    table.write_text(table.read_text(encoding="utf-8") + "p99,50,none,1,x\n", encoding="utf-8")
    assert cached_cohort(table, text).patients == first.patients + 1


def test_excluded_patients_are_dropped_before_anything_is_checked(contract):
    rows = [*GOOD, ("x", "999", "else", "9"), ("x", "999", "else", "9")]
    excluded = frozenset({patient_hash("x", b"key"), patient_hash("nobody", b"key")})
    prepared = prepare_all(_table(rows), contract, Reading(b"key", excluded))
    assert prepared.cohort.patients == 4
    assert prepared.excluded == 1
    with pytest.raises(DataError, match="contract-unmet"):
        prepare_all(_table(rows), contract, Reading(b"another key", excluded))


def test_equal_content_has_an_equal_digest_and_a_changed_cell_another(contract):
    table = _table(GOOD)
    one = prepare_all(table, contract).content
    sliced = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert prepare_all(sliced, contract).content == one
    assert prepare_all(_table(_with(0, 1, "21")), contract).content != one
    moved = _table([("a", "2", "0typical", "1"), *GOOD[1:]])  # the same characters, cut elsewhere
    assert prepare_all(table, contract).content != _digest_only(moved)


def _digest_only(table: pa.Table) -> str:
    from larrey_client.data.content import content_digest

    return content_digest(table)


def test_a_scan_gives_each_patients_keyed_hash_once_and_in_order(table):
    data = scan(connect(table), "pid", b"key")
    assert unpack_hashes(data) == {patient_hash(f"p{i}", b"key") for i in range(12)}
    assert len(data) == 12 * 16
    assert data == b"".join(sorted(data[i : i + 16] for i in range(0, len(data), 16)))
    with pytest.raises(DataError, match="column-missing"):
        scan(connect(table), "nobody", b"key")


def test_every_rule_is_silent_on_a_good_table(contract):
    cells = Cells(contract, _table(GOOD))
    assert [name for name, rule in RULES.items() if list(rule(contract, cells))] == []
