"""Columns that identify a person are recognised by their name and by what they hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from larrey_client.data.cells import Cells
from larrey_client.data.forms import looks_like
from larrey_client.data.lint import identifies_by_name, lint_values
from larrey_client.data.numbers import is_nir
from larrey_protocol.contract import Contract
from tests.client.training.conftest import CONTRACT

TELLING = (
    "nir INS ipp Patient_Name nomPatient prénom date_naissance dateOfBirth DATE-DE-NAISSANCE"
    " birth_date dob email e-mail courriel adresse home_address numero_telephone phone1"
    " code_postal ssn name nom"
)

CLINICAL = (
    "patient_id pid subject drug_name poids_naissance birth_weight ins_level insulin telemetry"
    " nominal mobile_unit zipper lactate nirs age"
)


def _nir(number: int) -> str:
    """Return a well-formed number with its key; none of a real person."""
    head = f"1851275{number % 1000:03}{number % 997:03}"
    return head + f"{97 - int(head) % 97:02}"


@pytest.mark.parametrize(
    "name",
    TELLING.split(),
)
def test_a_name_that_identifies_is_recognised_in_french_and_english(name):
    assert identifies_by_name(name)


@pytest.mark.parametrize(
    "name",
    CLINICAL.split(),
)
def test_a_clinical_name_is_no_identifier(name):
    assert not identifies_by_name(name)


def test_the_key_of_a_national_number_is_checked_also_for_corsica():
    assert is_nir("255081416802538")  # the textbook's example
    assert not is_nir("255081416802539")
    corsican = "1850" + "7" + "2A" + "004" + "123"
    key = 97 - int(corsican.replace("2A", "19")) % 97
    assert is_nir(f"{corsican}{key:02}")
    assert not is_nir("2550814168025")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([_nir(i) for i in range(40)], "NIR"),
        ([_nir(i)[:13] for i in range(40)], "NIR"),
        ([f"{n[0]} {n[1:3]} {n[3:5]} {n[5:7]} {n[7:10]} {n[10:13]} {n[13:]}" for n in
          map(_nir, range(40))], "NIR"),
        (["p1", "p2", "p3", "somebody@example.org"], "e-mail"),
        (["06 12 34 56 78", "+33 6 12 34 56 78", "p3"], "telephone"),
        (["1950-03-02", "1961-11-30", "1944-01-01"], "dates"),
        (["02/03/1950", "30/11/1961", "unknown"], "dates"),
        (["DUPONT Marie", "Martin Jean-Paul", "O'Brien, Ann"], "people"),
    ],
)  # fmt: skip
def test_values_that_identify_are_recognised_as_an_identifier_of_a_unit(values, what):
    assert what in looks_like(pa.array(values), may_be_names=True)


@pytest.mark.parametrize(
    "values",
    [
        [f"p{i}" for i in range(20)],
        [f"{i:08x}-1f2e" for i in range(20)],
        [str(v) for v in np.random.default_rng(1).integers(10**14, 10**15, 300)],  # 15 digits
        [str(v) for v in np.random.default_rng(1).integers(10**12, 10**13, 300)],  # 13 digits
        [str(v) for v in np.random.default_rng(1).integers(10**9, 10**10, 300)],
        [str(v) for v in np.random.default_rng(1).integers(10**7, 10**8, 300)],
        ["12.5", "0.4", "1980"],
        [],
    ],
)
def test_pseudonyms_and_measurements_pass(values):
    assert looks_like(pa.array(values, pa.string()), may_be_names=True) == ""


def test_two_words_are_a_category_and_no_name_outside_the_unit_column():
    assert looks_like(pa.array(["typical angina", "atypical angina"])) == ""


def _columns(**changed: list[object]) -> Cells:
    columns = {
        "pid": [f"p{i}" for i in range(80)],
        "age": [50.0] * 80,
        "cp": ["none"] * 80,
        "sick": ["1", "0"] * 40,
    }
    return Cells(Contract.model_validate(CONTRACT), pa.table(columns | changed))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("pid", [_nir(i) for i in range(80)]),
        ("pid", [int(_nir(i)) for i in range(80)]),
        ("age", [float(_nir(i)) for i in range(80)]),
        ("sick", [f"19{i}-01-02" for i in range(10, 90)]),
        ("cp", [f"fell down the stairs at {i}" for i in range(80)]),
    ],
)
def test_every_column_that_a_contract_asks_for_is_looked_at(column, values):
    cells = _columns(**{column: values})
    found = list(lint_values(cells.contract, cells))
    assert [(violation.rule, violation.column) for violation in found] == [
        ("identifier-value", column)
    ]
    assert str(values[0]) not in str(found[0])


def test_a_good_table_has_nothing_to_lint():
    cells = _columns()
    assert list(lint_values(cells.contract, cells)) == []
