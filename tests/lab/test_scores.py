"""Scores of every task against scikit-learn; of survival against lifelines and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from larrey_lab.flamby import tasks as flamby
from larrey_lab.scores import (
    bootstrap,
    concordance,
    groups_of,
    has_enough,
    measures,
    probabilities,
    survival_brier,
    survival_curve,
)
from larrey_protocol.contract import Contract
from tests.protocol.samples import CONTRACT
from tests.protocol.test_labels import LABELS

RANDOM = np.random.default_rng(8)
LABEL = {
    kind: Contract.model_validate({**CONTRACT, "label": label}).label
    for kind, label in LABELS.items()
}


def told(kind, y, outputs):
    return {measure.name: measure.of(y, outputs) for measure in measures(LABEL[kind])}


def test_yes_or_no_is_scored_as_scikit_learn_does():
    z = RANDOM.normal(size=(300, 1))
    y = (RANDOM.random(300) < 1 / (1 + np.exp(-z[:, 0]))).astype(float)
    share = 1 / (1 + np.exp(-z[:, 0]))
    assert told("binary", y, z) == pytest.approx(
        {
            "AUC": metrics.roc_auc_score(y, share),
            "accuracy": metrics.accuracy_score(y, share > 0.5),
            "log loss": metrics.log_loss(y, share),
            "Brier": metrics.brier_score_loss(y, share),
        }
    )


def test_classes_are_scored_as_scikit_learn_does():
    z = 2 * RANDOM.normal(size=(400, 3))
    y = np.array([RANDOM.choice(3, p=p) for p in probabilities(z)], float)
    p = probabilities(z)
    assert p.sum(axis=1) == pytest.approx(np.ones(400))
    assert told("class", y, z) == pytest.approx(
        {
            "macro AUC": metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"),
            "accuracy": metrics.accuracy_score(y, z.argmax(axis=1)),
            "log loss": metrics.log_loss(y, p),
            "Brier": metrics.brier_score_loss(y, p, labels=[0, 1, 2], scale_by_half=False),
        }
    )


def test_numbers_are_scored_in_the_contracts_unit():
    days = RANDOM.uniform(0, 60, 200)
    guess = days + RANDOM.normal(size=200)
    y, z = (days - 10) / 5, ((guess - 10) / 5)[:, None]
    assert told("number", y, z) == pytest.approx(
        {
            "MAE": metrics.mean_absolute_error(days, guess),
            "RMSE": metrics.root_mean_squared_error(days, guess),
            "R2": metrics.r2_score(days, guess),
        }
    )
    assert [measure.unit for measure in measures(LABEL["number"])] == ["d", "d", ""]


people = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.integers(-3, 3)), min_size=1, max_size=25
)


@given(people)
def test_concordance_is_the_share_of_pairs_that_a_plain_loop_counts(rows):
    credit = comparable = 0.0
    for time, event, risk in rows:
        for other_time, other_event, other_risk in rows:
            if event and (other_time > time or (other_time == time and not other_event)):
                comparable += 1
                credit += 0.5 if risk == other_risk else risk > other_risk
    time, event, risk = (np.array(column, float) for column in zip(*rows, strict=True))
    if not comparable:
        with pytest.raises(ValueError, match="compared"):
            concordance(time, event > 0, risk)
    else:
        assert concordance(time, event > 0, risk) == pytest.approx(credit / comparable)


def test_concordance_in_blocks_is_that_of_flambys_tables():
    time, event = RANDOM.integers(0, 99, 700).astype(float), RANDOM.random(700) < 0.9
    risk = RANDOM.normal(size=700)
    whole = flamby.concordance(np.column_stack([event, time]), risk)
    assert concordance(time, event, risk) == pytest.approx(whole)


def test_the_survival_curve_is_the_product_of_what_is_lived_through():
    z = RANDOM.normal(size=(50, 4))
    assert survival_curve(z) == pytest.approx(np.cumprod(1 - 1 / (1 + np.exp(-z)), axis=1))


def test_without_censoring_brier_is_the_plain_mean_at_each_end():
    z, lived = RANDOM.normal(size=(200, 4)), RANDOM.integers(0, 5, 200)
    y = np.where(lived < 4, 2 * lived + 1, 8).astype(float)
    each = [
        metrics.brier_score_loss(lived > j, survival_curve(z)[:, j], pos_label=True)
        for j in range(4)
    ]
    assert survival_brier(y, z) == pytest.approx(np.mean(each))


def brier_by_hand(y, curve):
    """Graf's weights with Kaplan-Meier of censoring, one row and one interval's end at a time."""
    rows = [(int(v) // 2, int(v) % 2) for v in y]

    def seen(last):  # share not lost in the intervals up to `last`
        share = 1.0
        for j in range(last + 1):
            lost = sum(1 for lived, event in rows if lived == j and not event)
            share *= 1 - lost / sum(1 for lived, _ in rows if lived >= j)
        return share

    total = 0.0
    for (lived, event), alive in zip(rows, curve, strict=True):
        for end in range(1, curve.shape[1] + 1):
            if lived >= end:
                total += (1 - alive[end - 1]) ** 2 / seen(end - 1)
            elif event:
                total += alive[end - 1] ** 2 / seen(lived)
    return total / curve.size


@settings(max_examples=60)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=20), st.integers(0, 99))
def test_brier_of_survival_is_that_of_a_plain_loop(values, seed):
    z = np.random.default_rng(seed).normal(size=(len(values), 4))
    y = np.array(values, float)
    assert survival_brier(y, z) == pytest.approx(brier_by_hand(y, survival_curve(z)))


# Of lifelines 0.30.3 (`concordance_index`; the second with the intervals as times, so that events
# and losses tie) and scikit-survival 0.28.0 (`brier_score` a quarter before each end), made once:
# both bring more packages than these three numbers are worth in every installation.
TIMES = np.array([1, 8, 2, 3, 3, 0, 5, 8, 7, 4, 1, 6, 8, 2, 5, 7, 1, 8, 4, 3], float)
LIFELINES, LIFELINES_TIED = 0.4368932038834951, 0.4491525423728814
SCIKIT_SURVIVAL = [0.19432644, 0.25156022, 0.32105912, 0.24084777]


def test_survival_is_scored_as_lifelines_and_scikit_survival_do():
    z = np.column_stack([np.sin(np.arange(20) * (j + 1)) - 1 for j in range(4)])
    found = told("survival", TIMES, z)
    assert found["concordance"] == pytest.approx(LIFELINES, rel=1e-12)
    assert found["Brier"] == pytest.approx(np.mean(SCIKIT_SURVIVAL), abs=1e-8)
    risk = -survival_curve(z).sum(axis=1)
    assert concordance(TIMES // 2, TIMES % 2 > 0, risk) == pytest.approx(LIFELINES_TIED, rel=1e-12)


def test_brier_is_nearly_the_same_when_half_the_patients_are_lost_at_random():
    random = np.random.default_rng(8)
    z, rows = random.normal(size=(1, 4)).repeat(20_000, axis=0), np.arange(20_000)
    died = random.random(z.shape) < 1 / (1 + np.exp(-z))
    lived = np.where(died.any(axis=1), died.argmax(axis=1), 4)
    y = np.where(lived < 4, 2 * lived + 1, 8).astype(float)
    lost = random.integers(0, 8, len(rows))
    censored = np.where(lost <= lived, 2.0 * np.minimum(lost, 4), y)
    assert (censored != y).mean() > 0.2
    assert survival_brier(censored, z) == pytest.approx(survival_brier(y, z), abs=0.01)


def test_an_interval_spans_the_estimate_and_keeps_patients_whole():
    y, z = RANDOM.normal(size=400), np.zeros((400, 1))
    mae = measures(LABEL["number"])[0]
    alone = bootstrap(mae, y, z, np.arange(400))
    assert alone.low < alone.value < alone.high
    twins = bootstrap(mae, np.tile(y, 4), np.tile(z, (4, 1)), np.tile(np.arange(400), 4))
    assert twins.high - twins.low == pytest.approx(alone.high - alone.low, rel=0.3)


@pytest.mark.parametrize(
    ("kind", "y", "groups"),
    [
        ("binary", [0, 1, 0, 0], [1, 0]),
        ("class", [0, 2, 1, 0], [2, 1]),
        ("survival", [8, 3, 4, 0], [1, 0]),
    ],
)
def test_a_patient_is_of_the_group_of_the_gravest_row(kind, y, groups):
    patient = np.array([0, 0, 1, 1])
    assert groups_of(LABEL[kind], np.array(y, float), patient).tolist() == groups


def test_numbers_are_grouped_by_quarters():
    found = groups_of(LABEL["number"], np.arange(100.0), np.arange(100))
    assert np.bincount(found.astype(int)).tolist() == [25, 25, 25, 25]


@pytest.mark.parametrize(
    ("kind", "values"), [("binary", (0, 1)), ("class", (0, 1, 2)), ("survival", (1, 6))]
)
def test_ten_patients_of_each_outcome_are_enough_and_nine_are_not(kind, values):
    y = np.repeat(values, 10).astype(float)
    patient = np.arange(len(y))
    assert has_enough(LABEL[kind], y, patient)
    assert not has_enough(LABEL[kind], y[1:], patient[1:])
