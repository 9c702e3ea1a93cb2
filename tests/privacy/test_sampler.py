"""Poisson sampling over patients."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from larrey_privacy.cohort import Cohort
from larrey_privacy.sampler import PoissonSampler
from larrey_protocol.errors import DataError


def test_rate_one_draws_every_patient(make_cohort):
    cohort = make_cohort([1, 2, 3])
    draw = PoissonSampler().draw(cohort, rate=1.0, max_rows=3)
    assert draw.counts.tolist() == [1, 2, 3]
    assert sorted(draw.rows.tolist()) == list(range(6))


def test_drawn_rows_are_whole_patients_one_after_another(make_cohort):
    cohort = make_cohort([3, 1, 4, 2] * 50)
    draw = PoissonSampler().draw(cohort, rate=0.5, max_rows=4)
    owner = cohort.patient[draw.rows]
    assert (np.unique(owner, return_counts=True)[1] == draw.counts).all()
    assert (np.diff(owner) >= 0).all()


def test_each_patient_joins_independently_with_the_rate(make_cohort):
    cohort = make_cohort([1] * 2000)
    sampler = PoissonSampler()
    sizes, hits = [], np.zeros(2000)
    for _ in range(400):
        draw = sampler.draw(cohort, rate=0.1, max_rows=1)
        sizes.append(len(draw.counts))
        hits[cohort.patient[draw.rows]] += 1
    # Binomial spread: six standard errors for the mean, and a variance that is not a fixed size's.
    assert abs(np.mean(sizes) - 200) < 6 * np.sqrt(180 / 400)
    assert 120 < np.var(sizes) < 260
    assert abs(np.var(hits) - 36) < 10


def test_a_patient_with_many_rows_gives_a_uniform_subset(make_cohort):
    cohort = make_cohort([6, 1])
    sampler = PoissonSampler()
    seen = np.zeros(7)
    for _ in range(1200):
        draw = sampler.draw(cohort, rate=1.0, max_rows=2)
        assert draw.counts.tolist() == [2, 1]
        assert len(set(draw.rows.tolist())) == 3
        seen[draw.rows] += 1
    many = seen[cohort.patient == 0]
    assert (abs(many - 400) < 6 * np.sqrt(1200 * 2 / 9)).all()


def test_a_draw_may_be_empty(make_cohort):
    draw = PoissonSampler().draw(make_cohort([1, 2]), rate=1e-15, max_rows=1)
    assert len(draw.rows) == len(draw.counts) == 0


def test_equal_seeds_of_other_libraries_do_not_repeat_a_draw(make_cohort):
    cohort = make_cohort([1] * 200)
    draws = []
    for _ in range(2):
        np.random.seed(3)  # noqa: NPY002 - the global generator is what must not matter
        draws.append(PoissonSampler().draw(cohort, rate=0.5, max_rows=1).rows.tolist())
    assert draws[0] != draws[1]


def test_a_given_entropy_decides_the_draw(make_cohort):
    cohort = make_cohort([1] * 100)

    def fixed(count: int) -> bytes:
        return hashlib.shake_128(b"test").digest(count)

    first, second = (PoissonSampler(fixed).draw(cohort, rate=0.5, max_rows=1) for _ in range(2))
    assert first.rows.tolist() == second.rows.tolist()


@pytest.mark.parametrize("patient", [[0, 2], [-1, 0], [], [5, 5]])
def test_a_cohort_with_gaps_in_its_patients_is_refused(patient):
    rows = len(patient)
    with pytest.raises(DataError, match="cohort-malformed"):
        Cohort(
            np.zeros((rows, 2), np.float32),
            np.zeros(rows, np.float32),
            np.array(patient, dtype=np.int64),
        )


def test_a_cohort_never_prints_its_data(make_cohort):
    assert repr(make_cohort([1, 1])) == "Cohort(…)"
