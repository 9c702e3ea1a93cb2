"""Study and contract files are read strictly and refused in words a person can act on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model

from larrey_protocol.contract import Contract, Name
from larrey_protocol.decisions import Digest
from larrey_protocol.enrolment import Address
from larrey_protocol.errors import FileError
from larrey_protocol.keys import PublicKey
from larrey_protocol.people import PersonName
from larrey_protocol.permit import Permit
from larrey_protocol.study import PermitReference, SiteName, StudyFile, load_study
from larrey_protocol.tomlfile import load_toml, parse_toml, validate
from tests.protocol.permits import permit
from tests.protocol.samples import CONTRACT, STUDY, study

HEART = Path(__file__).parents[2] / "examples" / "heart" / "study.toml"


def changed(data: dict[str, Any], *path: str | int, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(data)
    target: Any = data
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    return data


def test_an_unknown_key_names_itself_and_the_nearest_valid_one() -> None:
    data = changed(STUDY, "training", "learning_rat", value=1.0)
    with pytest.raises(FileError, match=r"learning_rat' at training.*learning_rate") as caught:
        validate(data, StudyFile, "study.toml")
    assert caught.value.code == "unknown-key"


def test_an_unknown_key_in_a_union_still_finds_its_neighbour() -> None:
    data = changed(STUDY, "privacy", "noise_multiplyer", value=1.0)
    with pytest.raises(FileError, match="noise_multiplier"):
        validate(data, StudyFile, "study.toml")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("privacy", "epsilon"), 0.0),
        (("privacy", "epsilon"), float("nan")),
        (("privacy", "delta"), 0.5),
        (("privacy", "sampling_rate"), 1.5),
        (("privacy", "noise_multiplier"), 1e-6),
        (("training", "rounds"), 0),
        (("training", "momentum"), 1.0),
        (("rounds", "quorum"), 3),
        (("model", "name"), "transformer"),
        (("model", "hidden"), [4]),
        (("study", "purpose"), "advertising"),
        (("study", "name"), "../evil"),
        (("sites",), []),
        (("sites",), [{"name": "a-site", "patients": 1}] * 2),
    ],
)
def test_an_impossible_study_value_is_refused(path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(FileError, match=r"\[invalid-file\]"):
        validate(changed(STUDY, *path, value=value), StudyFile, "study.toml")


APP = {
    **STUDY,
    "privacy": {"mechanism": "none"},
    "training": {**STUDY["training"], "app": "standard"},
}


@pytest.mark.parametrize(
    ("calls", "metrics"),
    [
        (["train"], []),
        (["train", "evaluate"], ["loss"]),
        (["train", "query", "evaluate"], [f"m{i}" for i in range(64)]),
    ],
)
def test_a_study_of_an_app_says_which_handlers_it_calls(
    calls: list[str], metrics: list[str]
) -> None:
    told = {**APP["training"], "calls": calls, "metrics": metrics}
    training = validate({**APP, "training": told}, StudyFile, "study.toml").training
    assert (training.calls, training.metrics) == (tuple(calls), tuple(metrics))


@pytest.mark.parametrize(
    ("calls", "metrics"),
    [
        ([], []),
        (["evaluate"], ["loss"]),  # nothing was trained, nothing is paid for
        (["evaluate", "train"], ["loss"]),
        (["train", "train"], []),
        (["train", "unmask"], ["loss"]),
        (["train", "evaluate"], []),  # it could tell nothing
        (["train"], ["loss"]),
        (["train", "evaluate"], ["loss", "loss"]),
        (["train", "evaluate"], ["Loss of p4711"]),
        (["train", "evaluate"], [f"m{i}" for i in range(65)]),
    ],
)
def test_calls_or_metrics_that_do_not_fit_are_refused(calls: list[str], metrics: list[str]) -> None:
    told = {**APP["training"], "calls": calls, "metrics": metrics}
    with pytest.raises(FileError, match=r"\[invalid-file\]"):
        validate({**APP, "training": told}, StudyFile, "study.toml")


def test_only_a_standard_app_has_other_handlers() -> None:
    told = {**STUDY["training"], "calls": ["train", "evaluate"], "metrics": ["loss"]}
    with pytest.raises(FileError, match="need a standard Flower app"):
        validate({**STUDY, "training": told}, StudyFile, "study.toml")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("columns", 0, "range"), [5, 5]),
        (("columns", 0, "steps"), []),
        (("columns", 0, "steps", 1, "low"), 100.0),
        (("columns", 0, "steps", 0, "from"), "raw-rows"),
        (("columns", 1, "values"), ["F"]),
        (("columns", 1, "steps"), []),
        (("columns", 1, "name"), "age"),
        (("label", "negative"), ["1"]),
        (("unit", "max_rows"), 0),
    ],
)
def test_an_inconsistent_contract_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    with pytest.raises(FileError):
        validate(changed(CONTRACT, *path, value=value), Contract, "contract.toml")


def test_missing_broken_and_binary_files_have_their_own_codes(tmp_path: Path) -> None:
    broken, binary = tmp_path / "broken.toml", tmp_path / "binary.toml"
    broken.write_text("a = [")
    binary.write_bytes(b"\xff\xfe")
    codes = []
    for path in (tmp_path / "none.toml", broken, binary):
        with pytest.raises(FileError) as caught:
            load_toml(path, StudyFile)
        codes.append(caught.value.code)
    assert codes == ["missing-file", "invalid-toml", "invalid-toml"]


def test_a_contract_outside_the_study_folder_is_refused(tmp_path: Path) -> None:
    text = HEART.read_text().replace('"contract.toml"', '"../contract.toml"')
    assert "../contract.toml" in text
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(FileError, match="unsafe-path"):
        load_study(tmp_path / "study.toml")


def test_the_digest_changes_with_any_value_of_study_or_contract() -> None:
    base = study()
    other = base.model_copy(
        update={"contract": Contract.model_validate(changed(CONTRACT, "unit", "max_rows", value=2))}
    )
    digests = {base.digest, study(training__rounds=4).digest, study(privacy__clip=0.6).digest}
    assert len(digests | {other.digest}) == 4
    assert base.digest == study().digest


def test_features_follow_the_declared_columns_and_steps() -> None:
    assert study().contract.feature_names() == ("age", "age?", "sex=F", "sex=M")


def test_weights_are_public_and_sum_to_one() -> None:
    assert study().weights == (0.25, 0.75)
    assert study().expected_batch("beta") == 300.0


def test_a_site_file_must_be_toml_text() -> None:
    with pytest.raises(FileError, match="invalid-toml"):
        parse_toml("= nothing", StudyFile, "here")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (SiteName, "a name of lower-case letters, digits and hyphens"),
        (PersonName, "a name of lower-case letters, digits, dots and hyphens"),
        (Name, "a name of letters, digits"),
        (PermitReference, "such as FR/2026/0001"),
        (PublicKey, "a public key"),
        (Digest, "a digest"),
        (Address, "an address such as"),
    ],
)
def test_a_name_that_does_not_fit_is_told_in_words(kind: Any, words: str) -> None:
    model = create_model("Named", value=(kind, ...))
    with pytest.raises(FileError, match=f"value: expected .*{words}.*, found 'St Mary!'") as caught:
        validate({"value": "St Mary!"}, model, "site.toml")
    assert "^" not in str(caught.value)


def test_a_rule_about_a_whole_table_does_not_print_it() -> None:
    use = permit().model_dump(mode="json")["use"] | {"valid_until": "2001-01-01"}
    document = permit().model_dump(mode="json") | {"use": use}
    with pytest.raises(FileError, match="needs valid_from <= valid_until") as caught:
        validate(document, Permit, "permit.toml")
    assert "found" not in str(caught.value)
    assert "legal_basis" not in str(caught.value)


def test_a_table_in_place_of_a_value_is_called_one() -> None:
    data = changed(STUDY, "study", "name", value={"first": "heart"})
    with pytest.raises(FileError, match=r"study.name: .*, found a table"):
        validate(data, StudyFile, "study.toml")
