"""The noise has the claimed law and is fresh; the tests catch noise that is not."""

from __future__ import annotations

import copy
import os
import pickle
import random

import numpy as np
import pytest
import torch
from scipy import stats

from larrey_privacy.noise import NoiseStream, grid_of, round_to_grid

COUNT = 400_000


def lag(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


@pytest.fixture(scope="module")
def draws() -> tuple[np.ndarray, np.ndarray]:
    stream = NoiseStream()
    return stream.normal(COUNT), stream.normal(COUNT)


def test_spread_is_the_claimed_one(draws):
    values = draws[0]
    assert abs(values.std() - 1) < 0.01
    # Two-sided chi-square at 1e-9, so that a correct stream fails once in a billion runs.
    assert 1e-9 < stats.chi2.cdf((values**2).sum(), COUNT) < 1 - 1e-9
    assert abs(values.mean()) < 6 / np.sqrt(COUNT)


def test_law_is_gaussian(draws):
    assert stats.kstest(draws[0], "norm").pvalue > 1e-6
    assert abs(lag(draws[0][: COUNT // 2], draws[0][COUNT // 2 :])) < 0.015


def test_consecutive_releases_are_uncorrelated(draws):
    assert abs(lag(*draws)) < 0.01


def test_half_the_noise_and_repeated_noise_are_caught(draws):
    """The mutants: each alarm above fires on the fault it is for."""
    assert abs((0.5 * draws[0]).std() - 1) > 0.01

    def stuck(count: int) -> bytes:
        return bytes(count)

    def seeded() -> np.ndarray:
        return NoiseStream(stuck).normal(COUNT)

    first, second = seeded(), seeded()
    assert abs(first.std() - 1) < 0.01
    assert lag(first, second) == pytest.approx(1.0)


def test_seeds_of_other_libraries_do_not_repeat_noise():
    values = []
    for _ in range(2):
        torch.manual_seed(42)
        np.random.seed(42)  # noqa: NPY002 - the global generator is what must not matter
        random.seed(42)
        values.append(NoiseStream().normal(1000))
    assert abs(lag(*values)) < 0.2


def test_a_restored_machine_with_stuck_entropy_still_gets_other_noise_for_another_entry():
    def stuck(count: int) -> bytes:
        return bytes(count)

    streams = [NoiseStream(stuck), NoiseStream(stuck)]
    streams[1].bind(7)
    assert abs(lag(streams[0].normal(1000), streams[1].normal(1000))) < 0.2


def test_a_restored_machine_that_repeats_an_entry_still_gets_other_noise():
    """Equal secret and entry, as in a snapshot: the fresh bytes make the difference."""
    values = []
    for _ in range(2):
        secrets = iter([bytes(32)])
        stream = NoiseStream(lambda count, left=secrets: next(left, None) or os.urandom(count))
        stream.bind(3)
        values.append(stream.normal(1000))
    assert abs(lag(*values)) < 0.2


def test_a_fork_does_not_repeat_its_parents_noise():
    reader, writer = os.pipe()
    stream = NoiseStream()
    child = os.fork()
    if child == 0:
        os.write(writer, stream.normal(1000).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    of_child = np.frombuffer(os.read(reader, 8000))
    os.close(reader)
    os.close(writer)
    assert abs(lag(of_child, stream.normal(1000))) < 0.2


def test_a_fork_renews_the_secret_even_when_fresh_bytes_repeat():
    """With entropy that differs by process only, the secret must be drawn again in the child."""

    def per_process(count: int) -> bytes:
        return os.getpid().to_bytes(8, "big").ljust(count, b"\0")[:count]

    stream = NoiseStream(per_process)
    secret = stream._secret
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        stream.normal(1)
        os.write(writer, stream._secret)
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 32) != secret
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_can_be_neither_copied_nor_saved(take):
    with pytest.raises(TypeError, match="never copied"):
        take(NoiseStream())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 32768, 32769, 70001])
def test_any_length_is_given_in_full(count):
    values = NoiseStream().normal(count)
    assert values.shape == (count,)
    assert np.isfinite(values).all()
    assert len(np.unique(values)) == count


def test_the_grid_is_public_and_coarser_than_the_sums_rounding():
    for largest in (0.5, 300.0, 1e7):
        grid = grid_of(0.5, largest)
        assert grid >= 2**10 * np.spacing(largest)
        assert np.log2(grid / 0.5) == round(np.log2(grid / 0.5))
    values = round_to_grid(np.array([0.1, -3.7]), grid_of(0.5, 300.0))
    assert values == pytest.approx([0.1, -3.7], abs=1e-7)
    assert (values / grid_of(0.5, 300.0) % 1 == 0).all()
