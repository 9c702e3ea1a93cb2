"""Gradients are torch's of FLamby's losses; concordance is the definition, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from larrey_lab.flamby.tasks import Binary, Cox, accuracy, concordance
from tests.lab.flamby_help import survival_part


def cox_loss(score, event, time):
    """FLamby's loss, one patient after the other in falling order of time."""
    order = torch.argsort(-time, stable=True)
    score, event = score[order], event[order]
    terms = [-event[i] * (score[i] - torch.logsumexp(score[: i + 1], 0)) for i in range(len(score))]
    return torch.stack(terms).mean()


def test_cox_gradient_is_that_of_torch_also_with_ties():
    part = survival_part()
    score = np.random.default_rng(1).normal(size=30).astype(np.float32)
    tensor = torch.tensor(score, requires_grad=True)
    cox_loss(tensor, *torch.tensor(part.y.T)).backward()
    pull = Cox().pull(score[None], part.y[None], np.ones((1, 30), np.float32))
    assert pull[0] == pytest.approx(tensor.grad.numpy(), abs=1e-6)


def test_logistic_gradient_is_that_of_torch():
    random = np.random.default_rng(2)
    score = random.normal(size=8).astype(np.float32) * 5
    label = random.integers(0, 2, (8, 1)).astype(np.float32)
    tensor = torch.tensor(score, requires_grad=True)
    torch.nn.functional.binary_cross_entropy_with_logits(
        tensor, torch.tensor(label[:, 0])
    ).backward()
    pull = Binary().pull(score[None], label[None], np.ones((1, 8), np.float32))
    assert pull[0] == pytest.approx(tensor.grad.numpy(), abs=1e-6)


@pytest.mark.parametrize("task", [Binary(), Cox()])
def test_a_masked_row_is_as_if_it_were_not_there(task):
    part = survival_part(patients=8)
    score = np.linspace(-2, 3, 8, dtype=np.float32)
    short = task.pull(score[None, :5], part.y[None, :5], np.ones((1, 5), np.float32))
    mask = np.r_[np.ones(5), np.zeros(3)].astype(np.float32)[None]
    long = task.pull(score[None], part.y[None], mask)
    assert long[0, :5] == pytest.approx(short[0], abs=1e-7)
    assert not long[0, 5:].any()


def test_scores_far_apart_give_a_finite_cox_gradient():
    score = np.array([[0, 500, -500, 1e4]], np.float32)
    y = np.array([[[1, 1], [1, 2], [1, 3], [0, 4]]], np.float32)
    pull = Cox().pull(score, y, np.ones((1, 4), np.float32))
    assert np.isfinite(pull).all()
    assert pull.sum() == pytest.approx(0, abs=1e-4)  # if all scores move, the loss stays


def test_a_single_patient_pulls_nowhere():
    pull = Cox().pull(
        np.array([[3.0]], np.float32), np.array([[[1, 9]]], np.float32), np.ones((1, 1))
    )
    assert pull == pytest.approx(0)


@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.integers(1, 6), st.integers(-3, 3)), min_size=2, max_size=25
    )
)
def test_concordance_is_its_definition_with_ties_of_time_and_score(rows):
    good, total = 0.0, 0
    for event, time, score in rows:
        for other_event, other_time, other_score in rows:
            if event and (other_time > time or (other_time == time and not other_event)):
                total += 1
                good += 1.0 if score > other_score else 0.5 if score == other_score else 0.0
    assume(total)
    y = np.array([(event, time) for event, time, _ in rows], np.float32)
    score = np.array([score for _, _, score in rows], np.float32)
    assert concordance(y, score) == pytest.approx(good / total)


def test_concordance_is_one_when_the_first_to_die_have_the_highest_scores():
    y = np.array([[1, 3], [1, 1], [0, 5], [1, 2]], np.float32)
    assert concordance(y, -y[:, 1]) == 1
    assert concordance(y, y[:, 1]) == 0


def test_accuracy_counts_a_score_above_zero_as_positive():
    label = np.array([[1], [0], [1], [0]], np.float32)
    assert accuracy(label, np.array([0.1, -0.1, -0.1, 0.0], np.float32)) == 0.75
