"""Kinds of outcomes: what a contract may declare of them, and what each asks of the model."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from larrey_protocol.canonical import canonical_json
from larrey_protocol.contract import Contract
from larrey_protocol.errors import FileError, Refusal
from larrey_protocol.models import model_layout
from larrey_protocol.study import Study
from larrey_protocol.tasks import label_values, loss_name, output_count
from larrey_protocol.tomlfile import validate
from tests.protocol.samples import CONTRACT, study

CLASSES = [{"name": "low", "texts": ["1", "I"]}, {"name": "mid", "texts": ["2"]}]
LABELS: dict[str, dict[str, Any]] = {
    "binary": {"column": "y", "positive": ["1"], "negative": ["0"]},
    "class": {
        "kind": "class",
        "column": "y",
        "classes": [*CLASSES, {"name": "high", "texts": ["3"]}],
    },
    "number": {
        "kind": "number",
        "column": "y",
        "unit": "d",
        "range": [0, 60],
        "center": 10,
        "scale": 5,
    },
    "survival": {
        "kind": "survival",
        "time": "days",
        "event": "died",
        "events": ["1"],
        "censored": ["0"],
        "unit": "d",
        "edges": [30, 90, 365, 730],
    },
}
PAGE = Path(__file__).parents[2] / "docs" / "outcomes.md"
NUMBER, SURVIVAL = LABELS["number"], LABELS["survival"]


def contract_of(label: dict[str, Any]) -> Contract:
    return validate({**CONTRACT, "label": label}, Contract, "contract.toml")


@pytest.mark.parametrize(
    ("kind", "outputs", "loss", "columns"),
    [
        ("binary", 1, "logistic", ("y",)),
        ("class", 3, "cross-entropy", ("y",)),
        ("number", 1, "squared", ("y",)),
        ("survival", 4, "discrete-time", ("days", "died")),
    ],
)
def test_the_kind_decides_outputs_and_loss(kind, outputs, loss, columns) -> None:
    contract = contract_of(LABELS[kind])
    assert (contract.label.kind, output_count(contract), loss_name(contract)) == (
        kind,
        outputs,
        loss,
    )
    assert contract.column_names()[-len(columns) :] == columns
    made = Study(file=study().file, contract=contract)
    assert model_layout(made).entries[-1] == ("0.bias", (outputs,))
    assert Contract.model_validate_json(contract.model_dump_json(by_alias=True)) == contract


def test_a_label_without_a_kind_is_binary_and_its_document_keeps_its_bytes() -> None:
    plain = contract_of(LABELS["binary"])
    assert contract_of({**LABELS["binary"], "kind": "binary"}) == plain
    written = canonical_json(plain.model_dump(mode="json", by_alias=True))
    assert b'"kind":"binary"' not in written


def test_the_values_of_a_label_are_those_that_a_row_may_have() -> None:
    assert label_values(contract_of(LABELS["class"])) == (0, 1, 2)
    assert label_values(contract_of(NUMBER)) == (-2, 10)
    assert max(label_values(contract_of(SURVIVAL))) == 8  # lived through all four


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ({**LABELS["binary"], "kind": "ordinal"}, "one of binary, class, number, survival"),
        ({**LABELS["binary"], "kind": ["class"]}, "one of binary, class, number, survival"),
        ("y", "one of binary, class, number, survival"),
        ({**LABELS["class"], "classes": CLASSES[:1]}, "at least 2"),
        ({**LABELS["class"], "classes": [*CLASSES, CLASSES[0]]}, "two classes"),
        (
            {**LABELS["class"], "classes": [*CLASSES, {"name": "low", "texts": ["9"]}]},
            "have one name",
        ),
        (
            {**LABELS["class"], "classes": [{**CLASSES[0], "share_range": [1, 0]}, CLASSES[1]]},
            "share_range",
        ),
        ({**NUMBER, "range": [60, 0]}, "low < high"),
        ({**NUMBER, "center": 70}, "around its center"),
        ({**NUMBER, "scale": 0}, "greater than 0"),
        ({**NUMBER, "scale": 1e-9}, "too small"),
        ({**NUMBER, "unit": "days"}, "no UCUM code"),
        ({**NUMBER, "median_range": [9, 3]}, "median_range"),
        ({**SURVIVAL, "edges": []}, "at least 1"),
        ({**SURVIVAL, "edges": [0, 30]}, "must increase"),
        ({**SURVIVAL, "edges": [30, 30]}, "must increase"),
        ({**SURVIVAL, "censored": ["1"]}, "both event and censored"),
        ({**SURVIVAL, "event_range": [0.5, 0.1]}, "event_range"),
        ({**SURVIVAL, "event": "days"}, "declared twice"),
        ({**SURVIVAL, "time": "pid"}, "declared twice"),
    ],
)
def test_an_impossible_outcome_is_refused(label: Any, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        contract_of(label)


def test_a_misspelt_key_of_a_kind_names_the_nearest() -> None:
    with pytest.raises(FileError) as refused:
        contract_of({**SURVIVAL, "edgs": [30]})
    assert refused.value.code == "unknown-key"
    assert "'edges'" in refused.value.next_step


def test_the_partial_likelihood_of_cox_is_refused_and_says_why() -> None:
    contract = contract_of({**SURVIVAL, "loss": "cox"})
    with pytest.raises(Refusal, match="all others of the batch") as refused:
        loss_name(contract)
    assert refused.value.code == "loss-couples-patients"
    assert "discrete-time" in refused.value.next_step


def test_every_example_of_the_page_is_a_label_and_every_kind_has_one() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    found = [contract_of(tomllib.loads(text)["label"]).label.kind for text in examples]
    assert found == list(LABELS)
