"""Areas agree with scikit-learn; intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from larrey_lab.evaluation import auc, auc_or_too_few, bootstrap_auc, over_splits


@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=80).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_auc_is_that_of_scikit_learn_with_ties(rows):
    label, score = (np.array(column, float) for column in zip(*rows, strict=True))
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_auc_of_one_class_is_an_error():
    with pytest.raises(ValueError, match="both classes"):
        auc(np.ones(5), np.arange(5.0))


@pytest.mark.parametrize(("negatives", "is_given"), [(9, False), (10, True)])
def test_a_cell_with_fewer_than_ten_patients_of_a_class_says_too_few(negatives, is_given):
    label = np.r_[np.zeros(negatives), np.ones(30)]
    value = auc_or_too_few(label, np.arange(len(label), dtype=float), np.arange(len(label)))
    assert (value is not None) == is_given


def test_rows_of_one_patient_are_one_patient_in_the_count():
    label = np.r_[np.zeros(12), np.ones(30)]
    patient = np.r_[np.zeros(12, int), np.arange(1, 31)]
    assert auc_or_too_few(label, np.arange(42.0), patient) is None


def gaussian_rows(seed: int, rows: int = 150):
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, rows)
    return label, random.normal(size=rows) + label


def test_bootstrap_interval_covers_the_true_area_as_often_as_it_says():
    truth = 0.7602  # P(N(1,1) > N(0,1)) = Phi(1/sqrt 2)
    covered = 0
    for seed in range(200):
        label, score = gaussian_rows(seed)
        interval = bootstrap_auc(label, score, np.arange(150), resamples=300)
        covered += interval.low <= truth <= interval.high
    assert covered >= 180  # 95 % of 200 is 190, standard deviation 3.1


def test_bootstrap_draws_patients_not_rows():
    label, score = gaussian_rows(1)
    alone = bootstrap_auc(label, score, np.arange(150))
    doubled = bootstrap_auc(np.tile(label, 4), np.tile(score, 4), np.tile(np.arange(150), 4))
    assert doubled.high - doubled.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_bootstrap_of_one_row_a_patient_agrees_with_resampled_scikit_learn():
    label, score = gaussian_rows(2)
    random = np.random.default_rng(0)
    draws = [random.integers(0, 150, 150) for _ in range(1000)]
    low, high = np.percentile([roc_auc_score(label[d], score[d]) for d in draws], [2.5, 97.5])
    interval = bootstrap_auc(label, score, np.arange(150))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)


def test_interval_over_splits_is_wider_than_the_plain_standard_error():
    values = [0.88, 0.90, 0.86, 0.91, 0.89]
    interval = over_splits(values, held_out=0.25)
    plain = 2.776 * np.std(values, ddof=1) * np.sqrt(1 / 5)  # t at 4 degrees of freedom
    corrected = plain * np.sqrt((1 / 5 + 1 / 3) / (1 / 5))
    assert interval.value == pytest.approx(np.mean(values))
    assert interval.high - interval.value == pytest.approx(corrected, rel=1e-3)
