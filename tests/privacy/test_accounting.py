"""Epsilon of mechanisms against published figures, closed forms and a second accountant."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

import larrey_privacy
from larrey_privacy.accounting import (
    epsilon_pld,
    noise_for,
    noise_for_filter,
    rdp_at,
    spend_cost,
)
from larrey_privacy.filter import make_filter
from larrey_privacy.mechanism import UNBOUNDED, Mechanism, spend_from_record, spend_record
from larrey_protocol.errors import Refusal, UsageError

# q, sigma, T, delta, PLD: rows of the design's measured table; RDP of the same rows is higher.
TABLE = [
    (0.01, 1.0, 1000, 1e-5, 1.828, 2.101),
    (0.05, 1.0, 200, 1e-3, 3.162, 3.751),
    (0.05, 2.0, 1000, 1e-4, 3.183, 3.523),
    (0.25, 2.0, 40, 1e-3, 2.692, 3.121),
    (1.0, 10.0, 100, 1e-3, 3.139, 3.537),
]


def small(sigma: float, q: float, steps: int) -> Mechanism:
    return Mechanism(sigma, q, steps, dimension=14)


@pytest.mark.parametrize(("q", "sigma", "steps", "delta", "pld", "rdp"), TABLE)
def test_pld_gives_the_figures_of_the_design_and_stays_below_rdp(q, sigma, steps, delta, pld, rdp):
    epsilon = epsilon_pld(small(sigma, q, steps), delta)
    # The grid allowance of 1e-4 on sigma moves epsilon by about as much, relatively.
    assert epsilon == pytest.approx(pld, abs=0.0015)
    assert epsilon < rdp


def test_full_batches_agree_with_the_closed_form_of_the_gaussian_mechanism():
    sigma, steps, delta = 9.3, 5, 1e-5
    epsilon = epsilon_pld(small(sigma, 1.0, steps), delta)
    mu = math.sqrt(steps) / sigma
    # Balle and Wang 2018 (arXiv 1805.06530), theorem 8.
    exact = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert exact <= delta
    assert exact == pytest.approx(delta, rel=0.01)


def test_less_noise_is_accounted_than_is_added_before_the_grid():
    sigma, steps, delta = 1.0, 10, 1e-5
    mu = math.sqrt(steps) / (sigma / (1 + 1e-4))

    def excess(epsilon: float) -> float:
        tail = math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        return float(norm.cdf(mu / 2 - epsilon / mu) - tail - delta)

    assert epsilon_pld(small(sigma, 1.0, steps), delta) >= brentq(excess, 1.0, 50.0)


@pytest.mark.parametrize(("q", "sigma", "steps", "delta"), [row[:4] for row in TABLE[1:4:2]])
def test_an_independent_accountant_agrees_within_two_hundredths(q, sigma, steps, delta):
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(sigma, q, steps)]
    prv = accountant.get_epsilon(delta, eps_error=0.01)
    assert abs(prv - epsilon_pld(small(sigma, q, steps), delta)) <= 0.02


def test_pld_of_two_studies_is_that_of_their_steps_together():
    parts = [small(2.0, 1.0, 3), small(2.0, 1.0, 4)]
    assert epsilon_pld(parts, 1e-5) == epsilon_pld(small(2.0, 1.0, 7), 1e-5)


def test_rdp_is_the_gaussian_formula_rounded_up():
    exact = 4.5 * 5 / (2 * 9.3**2)
    value = rdp_at(small(9.3, 1.0, 5), 4.5)
    assert exact < value < exact * (1 + 3e-4)


@pytest.mark.parametrize("work", [UNBOUNDED, object()])
def test_work_that_no_accountant_knows_is_refused(work):
    with pytest.raises(Refusal, match="mechanism-unaccounted"):
        epsilon_pld([work], 1e-5)
    with pytest.raises(Refusal, match="mechanism-unaccounted"):
        rdp_at(work, 4.0)


@pytest.mark.parametrize(
    "values", [(0.0, 0.5, 1), (math.nan, 0.5, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.5, 0)]
)
def test_an_impossible_mechanism_cannot_be_made(values):
    with pytest.raises(UsageError, match="mechanism-impossible"):
        Mechanism(*values)


def test_a_mechanism_survives_its_record_and_an_unknown_kind_is_refused():
    for spend in (small(1.5, 0.25, 8), UNBOUNDED):
        assert spend_from_record(spend_record(spend)) == spend
    with pytest.raises(UsageError, match="mechanism-unknown"):
        spend_from_record({"kind": "gdp"})


def test_a_release_so_wide_that_its_tails_matter_costs_delta():
    narrow, wide = Mechanism(2.0, 1.0, 10, 14), Mechanism(2.0, 1.0, 10, 10**9)
    assert epsilon_pld(wide, 1e-6) > epsilon_pld(narrow, 1e-6)
    filter_ = make_filter(8.0, 1e-5)
    assert spend_cost(Mechanism(2.0, 1.0, 10, 10**8), filter_) > spend_cost(narrow, filter_)
    with pytest.raises(Refusal, match="mechanism-unaccounted"):
        spend_cost(Mechanism(2.0, 1.0, 100, 10**9), filter_)


def test_calibrated_noise_reaches_its_epsilon_and_hardly_more():
    sigma = noise_for(1.0, 1e-5, sampling_rate=1.0, steps=5)
    assert epsilon_pld(Mechanism(sigma, 1.0, 5), 1e-5) <= 1.0
    assert epsilon_pld(Mechanism(sigma * 0.999, 1.0, 5), 1e-5) > 1.0


@pytest.mark.parametrize("q", [1.0, 0.2])
def test_noise_for_a_share_of_the_filter_passes_it_and_hardly_more(q):
    filter_ = make_filter(8.0, 1e-5)
    sigma = noise_for_filter(filter_, 0.25, sampling_rate=q, steps=20)
    assert spend_cost(Mechanism(sigma, q, 20), filter_) <= 0.25 * filter_.capacity_units
    assert spend_cost(Mechanism(sigma * 0.999, q, 20), filter_) > 0.25 * filter_.capacity_units
    assert epsilon_pld(Mechanism(sigma, q, 20), 1e-5) < 8.0


def test_an_epsilon_that_no_noise_reaches_is_refused():
    with pytest.raises(Refusal, match="epsilon-unreachable"):
        noise_for_filter(make_filter(1.0, 1e-5), 1e-12, sampling_rate=1.0, steps=1)


def test_accounting_imports_no_torch():
    names = "accounting, filter, ledger_store, sampler, noise, cohort"
    work = "accounting.rdp_at(accounting.Mechanism(1.0, 0.5, 2), 3.0)"
    code = (
        f"import sys; from larrey_privacy import {names}; {work}; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_central_limit_accountant_and_no_pickle_can_be_reached():
    folder = Path(larrey_privacy.__file__).parent
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    forbidden = ("gdp", "GaussianAccountant", "opacus.accountants", "PrivacyEngine", "pickle.")
    forbidden += ("torch.load", "import pickle", "BatchMemoryManager", "manual_seed_all", "1.25")
    assert not [word for word in forbidden if word in text]


@pytest.mark.parametrize(
    ("sigma", "q", "steps"), [(0.21, 1.0, 100_000), (0.5, 0.5, 10**6), (1e4, 1.0, 10**8)]
)
def test_a_mechanism_that_would_fill_the_memory_is_refused_at_once(sigma, q, steps):
    with pytest.raises(Refusal) as refused:
        epsilon_pld(small(sigma, q, steps), 1e-5)
    assert refused.value.code == "mechanism-unaccounted"


@pytest.mark.parametrize("order", [1.45, 2.35, 3.85])
def test_the_divergence_is_finite_and_below_the_unsampled_one_at_any_rate(order):
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        for sigma in (1.0, 2.0, 30.0, 1000.0):
            assert 0 < rdp_at(small(sigma, q, 1), order) <= rdp_at(small(sigma, 1.0, 1), order)


@pytest.mark.parametrize(("q", "sigma", "order"), [(0.01, 10.0, 32.0), (0.001, 1e4, 7.5)])
def test_the_divergence_is_never_below_its_integral(q, sigma, order):
    seen = sigma / (1 + 1e-4)
    x, step = np.linspace(-12 * seen, 12 * seen + order, 20_001, retstep=True)
    u = q * np.expm1((2 * x - 1) / (2 * seen**2))
    excess = np.expm1(order * np.log1p(u)) - order * u
    density = np.exp(-x * x / (2 * seen**2)) / (seen * math.sqrt(2 * math.pi))
    exact = math.log1p(float(np.sum(density * excess) * step)) / (order - 1)
    assert rdp_at(small(sigma, q, 1), order) >= exact
