from __future__ import annotations

import pytest

from larrey_protocol.errors import UsageError
from larrey_strategies.fedopt import FedAdam
from larrey_strategies.registry import AlgorithmWords, make_algorithm, make_strategy


def test_parameters_carry_the_papers_names():
    adam = make_algorithm(
        AlgorithmWords("fedadam", {"eta": 0.1, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01})
    ).optimizer
    assert adam == FedAdam(0.1, 0.8, 0.9, 0.01)


@pytest.mark.parametrize(
    ("name", "parameters", "code", "hint"),
    [
        ("fedavgg", {}, "unknown-strategy", "'fedavg'"),
        ("FedProx", {}, "unknown-strategy", "'fedprox'"),
        ("fedadam", {"eta": 0.1, "beta1": 0.9}, "unknown-parameter", "'beta_1'"),
        ("fedavg", {"mu": 1.0}, "unknown-parameter", "Remove it"),
        ("fedprox", {}, "missing-parameter", "mu"),
        ("fedprox", {"mu": -1.0}, "invalid-parameter", "Correct"),
        ("fedprox", {"mu": float("nan")}, "invalid-parameter", "Correct"),
        ("fedadam", {"eta": 0.0}, "invalid-parameter", "Correct"),
        ("fedadam", {"eta": 1.0, "beta_1": 1.0}, "invalid-parameter", "Correct"),
    ],
)
def test_wrong_words_are_refused_with_the_next_step(name, parameters, code, hint):
    with pytest.raises(UsageError) as caught:
        make_strategy(name, parameters)
    assert caught.value.code == code
    assert hint in caught.value.next_step


def test_names_are_those_that_can_be_made():
    needed = {"fedprox": {"mu": 0.1}, "fedadam": {"eta": 0.1}}
    assert all(make_strategy(name, needed.get(name, {})) for name in ("fedavg", *needed))
