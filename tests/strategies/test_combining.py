"""One path for all aggregators: stretches, what is read, what memory it takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from larrey_protocol.encodings import BLOCK
from larrey_strategies.combining import aggregate, settle, stretches
from larrey_strategies.gram import PIECE
from larrey_strategies.krum import Krum, MultiKrum
from larrey_strategies.mean import Mean, weighted_mean
from larrey_strategies.median import Median
from larrey_strategies.norm_bounding import NormBounding

SIZE = 150_001  # more than one stretch, and no multiple of one


def updates_of(count: int, size: int = SIZE) -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(count, size)).astype(np.float32))


def test_the_mean_of_all_stretches_has_the_bits_of_the_mean_of_the_whole():
    updates, weights = updates_of(4), [1.0, 2.0, 3.0, 4.0]
    out, scratch = np.empty(SIZE, np.float32), np.empty(SIZE, np.float32)
    whole = weighted_mean(updates, weights, out=out, scratch=scratch)
    assert aggregate(Mean(), updates, weights).tobytes() == whole.tobytes()


@pytest.mark.parametrize("sites", [1, 3, 65, 1000])
def test_stretches_cover_everything_once_and_begin_with_a_whole_piece(sites):
    found = list(stretches(300_001, sites))
    assert [start for start, _ in found[1:]] == [start + count for start, count in found[:-1]]
    assert found[0][0] == 0
    assert sum(found[-1]) == 300_001
    assert all(start % PIECE == 0 for start, _ in found)


def test_a_piece_is_made_of_whole_blocks_of_an_encoding():
    assert PIECE % BLOCK == 0


def test_buffers_of_a_thousand_sites_stay_bounded():
    _, count = next(stretches(10_000_000, 1000))
    assert 1000 * count * 4 <= 16 << 20


@pytest.mark.parametrize("rule", [Krum(1), MultiKrum(1, 2)])
def test_only_updates_that_count_are_read_again(rule):
    updates, again = updates_of(6, 5000), []

    def read(site, start, count):
        again.append(site)
        return updates[site][start : start + count]

    settled = settle(rule, [1.0] * 6, 5000, read)
    again.clear()
    out, scratch = np.empty(5000, np.float32), np.empty(5000, np.float32)
    settled.combine(read, 0, out=out, scratch=scratch)
    assert tuple(again) == settled.sites
    assert len(again) == getattr(rule, "m", 1)


def test_an_update_that_does_not_count_cannot_spoil_the_sum():
    updates = updates_of(7, 50)
    updates[3][:] = 3e38
    assert np.abs(aggregate(Krum(1), updates, [1.0] * 7)).max() < 10


@pytest.mark.parametrize("rule", [Mean(), Median(), Krum(1), NormBounding(1.0)])
def test_memory_beside_the_result_does_not_grow_with_model_or_sites(rule):
    update = np.ones(1 << 21, np.float32)  # 8 MiB
    peaks = []
    for count in (6, 48):
        tracemalloc.start()
        aggregate(rule, [update] * count, [1.0] * count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < update.nbytes + (4 << 20)


@pytest.mark.parametrize("rule", [Mean(), Median(), Krum(1), NormBounding(1.0)])
def test_updates_are_left_untouched_and_the_result_is_new(rule):
    updates = updates_of(5, 9000)
    before = [update.tobytes() for update in updates]
    found = aggregate(rule, updates, [1.0] * 5)
    assert [update.tobytes() for update in updates] == before
    assert not any(np.shares_memory(found, update) for update in updates)
