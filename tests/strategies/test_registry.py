"""From a study's words to an algorithm."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_protocol.errors import UsageError
from larrey_strategies.contract import CoordinateRule, GeometricRule
from larrey_strategies.fedavg import FedAvg, Plain
from larrey_strategies.fedavgm import FedAvgM
from larrey_strategies.feddyn import FedDyn
from larrey_strategies.fedopt import FedAdam
from larrey_strategies.fedprox import FedProx
from larrey_strategies.krum import MultiKrum
from larrey_strategies.mean import Mean
from larrey_strategies.mr_mtl import MrMtl
from larrey_strategies.ranges import Range
from larrey_strategies.registry import (
    AGGREGATORS,
    OBJECTIVES,
    OPTIMIZERS,
    PRESETS,
    AlgorithmWords,
    make_algorithm,
    names,
    words_of,
)
from larrey_strategies.trimmed_mean import TrimmedMean
from tests.strategies.algorithms import every_algorithm


def test_parameters_carry_the_papers_names():
    words = AlgorithmWords("fedadam", {"eta": 0.1, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01})
    assert make_algorithm(words).optimizer == FedAdam(0.1, 0.8, 0.9, 0.01)


def test_no_words_are_federated_averaging():
    algorithm = make_algorithm(AlgorithmWords())
    assert algorithm == dataclasses.replace(
        algorithm, objective=Plain(), aggregator=Mean(), optimizer=FedAvg()
    )


def test_each_part_may_be_another():
    words = AlgorithmWords(
        "fedprox",
        {"mu": 0.1, "eta": 0.2},
        aggregator="trimmed-mean",
        optimizer="fedadam",
        aggregator_parameters={"beta": 0.25},
    )
    algorithm = make_algorithm(words)
    assert algorithm.objective == FedProx(0.1)
    assert algorithm.aggregator == TrimmedMean(0.25)
    assert algorithm.optimizer == FedAdam(0.2)


def test_a_parameter_goes_to_both_halves_of_a_paper():
    algorithm = make_algorithm(AlgorithmWords("feddyn", {"alpha": 0.2}))
    assert algorithm.objective == algorithm.optimizer == FedDyn(0.2)


def test_a_paper_may_use_a_word_of_python():
    algorithm = make_algorithm(AlgorithmWords("mr-mtl", {"lambda": 0.2}))
    assert algorithm.objective == algorithm.optimizer == MrMtl(lambda_=0.2)
    with pytest.raises(UsageError, match="mr-mtl: lambda must be in"):
        make_algorithm(AlgorithmWords("mr-mtl", {"lambda": -0.2}))


def test_a_preset_that_names_an_aggregator_takes_its_parameters():
    algorithm = make_algorithm(AlgorithmWords("multi-krum", {"f": 1.0, "m": 2.0}))
    assert algorithm.aggregator == MultiKrum(1, 2)


def test_a_name_that_two_parts_have_belongs_to_the_optimizer():
    words = AlgorithmWords("trimmed-mean", {"beta": 0.5}, optimizer="fedavgm")
    with pytest.raises(UsageError, match="trimmed-mean needs a value for 'beta'") as caught:
        make_algorithm(words)
    assert caught.value.next_step == "Add beta to [training.aggregator_parameters]."
    words = dataclasses.replace(words, aggregator_parameters={"beta": 0.25})
    assert make_algorithm(words).optimizer == FedAvgM(beta=0.5)
    assert make_algorithm(words).aggregator == TrimmedMean(0.25)


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (AlgorithmWords("fedavgg"), "unknown-strategy", "'fedavg'"),
        (AlgorithmWords("FedProx"), "unknown-strategy", "'fedprox'"),
        (AlgorithmWords(objective="prox"), "unknown-strategy", "'fedprox'"),
        (AlgorithmWords(aggregator="medan"), "unknown-strategy", "'median'"),
        (AlgorithmWords(optimizer="adam"), "unknown-strategy", "'fedadam'"),
        (AlgorithmWords("fedadam", {"eta": 0.1, "beta1": 0.9}), "unknown-parameter", "'beta_1'"),
        (AlgorithmWords("fedavg", {"mu": 1.0}), "unknown-parameter", "Remove it"),
        (AlgorithmWords(aggregator_parameters={"f": 1}), "unknown-parameter", "Remove it"),
        (AlgorithmWords("krum", {"f": 1}, aggregator="median"), "unknown-parameter", "Remove it"),
        (AlgorithmWords("fedprox"), "missing-parameter", "mu"),
        (AlgorithmWords("mr-mtl"), "missing-parameter", "lambda "),
        (AlgorithmWords("mr-mtl", {"lambda_": 1.0}), "unknown-parameter", "'lambda'"),
        (AlgorithmWords("krum"), "missing-parameter", "[training.parameters]"),
        (AlgorithmWords(aggregator="krum"), "missing-parameter", "[training.aggregator_param"),
        (AlgorithmWords("fedprox", {"mu": -1.0}), "invalid-parameter", "Correct"),
        (AlgorithmWords("fedprox", {"mu": float("nan")}), "invalid-parameter", "Correct"),
        (AlgorithmWords("fedprox", {"mu": float("inf")}), "invalid-parameter", "Correct"),
        (AlgorithmWords("fedadam", {"eta": 0.0}), "invalid-parameter", "Correct"),
        (AlgorithmWords("fedadam", {"eta": 1, "beta_1": 1.0}), "invalid-parameter", "Correct"),
        (AlgorithmWords("krum", {"f": 1.5}), "invalid-parameter", "Correct"),
        (AlgorithmWords("scaffold", optimizer="fedavg"), "parts-mismatch", "'scaffold' for both"),
        (AlgorithmWords(optimizer="scaffold"), "parts-mismatch", "'scaffold' for both"),
        (AlgorithmWords("feddyn", objective="plain"), "parts-mismatch", "'feddyn' for both"),
    ],
)
def test_wrong_words_are_refused_with_the_next_step(words, code, hint):
    with pytest.raises(UsageError) as caught:
        make_algorithm(words)
    assert caught.value.code == code
    assert hint in caught.value.next_step


def test_names_are_those_that_can_be_made():
    assert names() == tuple(every_algorithm())


def test_every_part_is_in_a_preset():
    for kind, parts in [
        ("objective", OBJECTIVES),
        ("aggregator", AGGREGATORS),
        ("optimizer", OPTIMIZERS),
    ]:
        assert {getattr(preset, kind) for preset in PRESETS.values()} == set(parts)


def test_each_aggregator_is_of_one_form():
    for algorithm in every_algorithm().values():
        rule = algorithm.aggregator
        assert isinstance(rule, CoordinateRule) != isinstance(rule, GeometricRule)


def test_the_words_of_a_study_are_read_from_its_training_table():
    table = SimpleNamespace(
        strategy="fedprox",
        parameters={"mu": 0.1},
        objective="",
        aggregator="median",
        optimizer="",
        aggregator_parameters={},
        rounds=3,
    )
    assert words_of(table) == AlgorithmWords("fedprox", {"mu": 0.1}, aggregator="median")


@given(value=st.floats(), low=st.floats(-5, 5), width=st.floats(0.1, 9), ends=st.booleans())
def test_a_range_holds_what_its_text_says(value, low, width, ends):
    allowed = Range(low, low + width, low_is_in=ends, high_is_in=not ends)
    inside = low <= value < low + width if ends else low < value <= low + width
    assert (value in allowed) == inside
    assert str(allowed)[0] + str(allowed)[-1] == ("[)" if ends else "(]")
