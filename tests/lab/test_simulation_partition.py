"""Patients are dealt to sites: each once, nobody's site empty, seeded, as unlike as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from larrey_lab.simulation.partition import Partition, deal, parse_partition
from larrey_protocol.errors import UsageError


@given(
    st.lists(st.booleans(), min_size=1, max_size=80),
    st.data(),
    st.sampled_from(["iid", "dirichlet:0.05", "dirichlet:0.3", "dirichlet:100"]),
)
def test_every_patient_has_one_site_and_every_site_a_patient(positive, data, words):
    sites = data.draw(st.integers(1, len(positive)))
    places = deal(np.array(positive), sites, parse_partition(words), seed=1)
    assert len(places) == len(positive)
    assert set(places.tolist()) == set(range(sites))


def test_the_same_seed_deals_alike_and_another_does_not():
    positive = np.arange(200) % 3 == 0
    partition = Partition("dirichlet", 0.3)
    first, again = (deal(positive, 10, partition, seed=4) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, deal(positive, 10, partition, seed=5))


def test_iid_sites_are_of_equal_size():
    places = deal(np.zeros(103, bool), 10, Partition("iid"), seed=0)
    assert set(np.bincount(places).tolist()) == {10, 11}


def test_a_small_concentration_makes_unlike_sites_and_a_large_one_alike():
    positive = np.arange(2000) % 2 == 0

    def spread(concentration: float) -> float:
        places = deal(positive, 10, Partition("dirichlet", concentration), seed=2)
        shares = np.bincount(places, weights=positive) / np.bincount(places)
        return float(shares.std())

    assert spread(0.1) > 0.3
    assert spread(10_000.0) < 0.05


@pytest.mark.parametrize("words", ["natural", "iid", "dirichlet:0.3", "dirichlet:2"])
def test_a_partition_is_written_as_it_is_read(words):
    assert str(parse_partition(words)) == words


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        ("dirichelt:0.3", "unknown-partition", "dirichlet:0.3"),
        ("natual", "unknown-partition", "natural"),
        ("dirichlet", "invalid-partition", "dirichlet:0.3"),
        ("dirichlet:x", "invalid-partition", "dirichlet:0.3"),
        ("dirichlet:0", "invalid-partition", "dirichlet:0.3"),
        ("dirichlet:nan", "invalid-partition", "dirichlet:0.3"),
        ("iid:3", "invalid-partition", "dirichlet:0.3"),
    ],
)
def test_other_words_are_refused_with_what_would_do(words, code, hint):
    with pytest.raises(UsageError, match=code) as refused:
        parse_partition(words)
    assert hint in refused.value.next_step


@pytest.mark.parametrize("sites", [0, 6])
def test_more_sites_than_patients_are_refused(sites):
    with pytest.raises(UsageError, match="too-many-sites"):
        deal(np.zeros(5, bool), sites, Partition("iid"), seed=0)
