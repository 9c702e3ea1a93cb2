"""What a contract may declare of units, medians, outcomes, parts and images."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.contract import Contract
from larrey_protocol.errors import FileError
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tomlfile import validate
from larrey_protocol.ucum import is_ucum
from tests.protocol.samples import CONTRACT, study

UNITS = """a mm[Hg] mg/dL /min 1 % [pH] mmol/L 10*9/L mL/min/{1.73_m2} {cells}/uL kg/m2 ug/(24.h)
    U/L [IU]/L m[IU]/L Cel cm[H2O] g.m/s2 meq/L mosm/kg {score} /[hpf] s-1 [degF] J/(K.mol) fL"""
WRONG = (
    r"""mm\L mgdl MMOL/L mmHg years mg//dL mg/ (mg mg) [foo] {a mgg kmin min5x () µmol/L mg/dl/"""
)


@pytest.mark.parametrize("unit", UNITS.split())
def test_a_unit_of_medicine_is_a_unit(unit: str) -> None:
    assert is_ucum(unit)


@pytest.mark.parametrize("unit", [*WRONG.split(), "", "mg dL", " mg", "m" * 99])
def test_a_misspelt_unit_is_none(unit: str) -> None:
    assert not is_ucum(unit)


@given(st.text(alphabet="()/.{}[]mgL1 -*^%", max_size=70))
def test_any_text_is_judged_and_a_product_of_units_is_a_unit(text: str) -> None:
    if is_ucum(text):
        assert is_ucum(f"({text})/L") == (len(text) <= 60)


def _with(**changes: Any) -> Contract:
    return validate({**CONTRACT, **changes}, Contract, "contract.toml")


def _age(**changes: Any) -> dict[str, Any]:
    return {"columns": [{**CONTRACT["columns"][0], **changes}]}


IMAGE: dict[str, Any] = {"columns": [], "image": {"height": 2, "width": 3}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (_age(unit="mgdl"), "no UCUM code"),
        (_age(median_range=[5, 3]), "median_range"),
        ({"columns": [{**CONTRACT["columns"][1], "median_range": [0, 1]}]}, "has no median"),
        ({"label": {**CONTRACT["label"], "prevalence_range": [0.5, 0.1]}}, "prevalence_range"),
        ({"label": {**CONTRACT["label"], "prevalence_range": [0, 1.5]}}, "less than or equal"),
        ({"split": {"train": 0.5, "valid": 0.1}}, "sum to 1"),
        ({"split": {"train": 0, "test": 1}}, "greater than 0"),
        ({"exclusions": {"opposition": "some"}}, "'permit', 'round' or 'none'"),
        ({"unit": {"column": "pid", "duplicates": "keep"}}, "'refuse' or 'allow'"),
        ({"columns": []}, "either"),
        ({"image": IMAGE["image"]}, "either"),
        ({**IMAGE, "image": {"height": 4096, "width": 4096}}, "at most"),
        ({**IMAGE, "image": {"height": 2, "width": 3, "channels": 4}}, "1 or 3"),
        ({**IMAGE, "image": {**IMAGE["image"], "path": "pid"}}, "declared twice"),
        ({**IMAGE, "rows": {"unit_norm": True}}, "unit_norm"),
    ],
)
def test_an_impossible_declaration_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        _with(**changes)


def test_an_image_is_as_many_features_as_it_has_values() -> None:
    contract = _with(**IMAGE)
    names = contract.feature_names()
    assert len(names) == contract.feature_count == 6
    assert names[:4] == ("pixel[0,0,0]", "pixel[0,1,0]", "pixel[0,2,0]", "pixel[1,0,0]")
    assert contract.column_names() == ("path", "sha256", "pid", "y")
    made = Study(file=study().file, contract=contract)
    assert model_layout(made).entries[0][1][1] == 6


def test_the_names_of_features_are_as_many_as_the_model_has_inputs() -> None:
    contract = study().contract
    assert len(contract.feature_names()) == contract.feature_count


def test_what_is_not_declared_is_not_asked() -> None:
    contract = _with()
    assert (contract.split, contract.image, contract.label.min_count) == (None, None, 0)
    assert contract.unit.duplicates == "refuse"
    assert contract.exclusions.opposition == "permit"
