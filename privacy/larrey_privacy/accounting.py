"""Epsilon of mechanisms, from Google's dp-accounting.

Two accountants: PLD is the figure people read; RDP at one fixed order is what the ledger's filter
adds up and what decides. No approximation by a central limit theorem exists here, no sum of
epsilons, no closed formula; a value that is not a ``Mechanism`` is refused. Does not import torch.

Every epsilon here: unit patient at one site, neighbours by adding or removing that patient.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache

from larrey_privacy.filter import PrivacyFilter
from larrey_privacy.mechanism import Mechanism, Spend
from larrey_protocol.errors import Refusal, UsageError

__all__ = ["epsilon_pld", "noise_for", "noise_for_filter", "rdp_at", "spend_cost"]

# Noise is rounded to a public grid; the accountant sees this much less of it (privacy.md 11).
_GRID_ALLOWANCE = 1 + 1e-4
# Probability beyond the 8.6 sigma that 53-bit uniforms reach, per released coordinate.
_TAIL = 1e-17
# Slack over the floating-point error of the RDP series: relative, and absolute a step. Measured
# against quadrature: at most 5e-14 below, and that only where the divergence itself is tiny.
_ROUND_UP = 1 + 1e-9
_STEP_SLACK = 1e-12
_MAX_NOISE = 1e6
# dp-accounting's PLD discretisation; at small sigma the arrays grow without it being useful.
_MIN_NOISE = 0.2
# Beyond either, PLD arrays take gigabytes; no study may claim an epsilon above 100.
_MAX_EPSILON = 300.0
_MAX_STEPS = 4_000_000
_COARSE_ORDERS = (2.0, 3.0, 4.0, 8.0, 16.0, 32.0)
_SEARCH_TOLERANCE = 1e-4


def epsilon_pld(mechanisms: Mechanism | Iterable[Spend], delta: float) -> float:
    """Return epsilon at delta of the mechanisms together, by privacy loss distributions.

    Valid for mechanisms fixed in advance. Tail cut (dimension × steps × 1e-17) taken from delta.

    Raises:
        Refusal: ``mechanism-unaccounted`` for work without differential privacy or unknown work.
        UsageError: ``delta-impossible`` when delta is outside (0, 1) or below the tail cut.
    """
    parts = [mechanisms] if isinstance(mechanisms, Mechanism) else list(mechanisms)
    steps: Counter[tuple[float, float]] = Counter()
    tail = 0.0
    for part in parts:
        known = _known(part)
        steps[(known.noise_multiplier, known.sampling_rate)] += known.steps
        tail += known.dimension * known.steps * _TAIL
    if not 0 < delta < 1 or tail >= delta:
        raise UsageError("delta-impossible", f"expected {tail:.3g} < delta < 1, found {delta}.")
    merged = tuple(sorted((sigma, q, count) for (sigma, q), count in steps.items()))
    return _pld(merged, delta - tail) if merged else 0.0


def rdp_at(mechanism: Spend, order: float) -> float:
    """Return the Rényi divergence bound at one order, rounded up.

    Raises:
        Refusal: ``mechanism-unaccounted`` for work without differential privacy or unknown work.
    """
    known = _known(mechanism)
    one = _rdp_step(known.noise_multiplier, known.sampling_rate, order)
    return math.nextafter((one * _ROUND_UP + _STEP_SLACK) * known.steps, math.inf)


def spend_cost(spend: Spend, privacy_filter: PrivacyFilter) -> int:
    """Return what the mechanism takes from the filter, in its whole units, rounded up.

    The RDP at the filter's order plus the tail cut: delta shrinks by t = dimension × steps × 1e-17
    and the capacity by at most 1.12 t / (delta (order - 1)) while all tails stay below a tenth
    of delta.
    """
    known = _known(spend)
    tail = known.dimension * known.steps * _TAIL / privacy_filter.delta
    if tail > 0.01:
        raise Refusal(
            "mechanism-unaccounted",
            f"the tails of {known.steps} steps of {known.dimension} coordinates take"
            f" {tail:.1%} of delta; at most 1 % is allowed.",
            "Use fewer steps, a smaller model or a larger delta.",
        )
    order = privacy_filter.order
    return privacy_filter.units(rdp_at(known, order) + 1.12 * tail / (order - 1))


def noise_for(epsilon: float, delta: float, *, sampling_rate: float, steps: int) -> float:
    """Return the smallest noise multiplier whose PLD epsilon is at most ``epsilon``.

    Accurate to 0.01 %, on the safe side.

    Raises:
        Refusal: ``epsilon-unreachable`` when no noise below 1e6 is enough.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise UsageError("epsilon-impossible", f"expected epsilon > 0, found {epsilon}.")
    template = Mechanism(1.0, sampling_rate, steps)

    def is_enough(sigma: float) -> bool:
        if _is_beyond([(sigma, sampling_rate, steps)], delta):
            return False
        return epsilon_pld(replace(template, noise_multiplier=sigma), delta) <= epsilon

    return _smallest_noise(is_enough)


def noise_for_filter(
    privacy_filter: PrivacyFilter, share: float, *, sampling_rate: float, steps: int
) -> float:
    """Return the smallest noise multiplier that spends at most ``share`` of the filter.

    This is what a planner uses, since the filter binds; PLD of the result is lower than the
    epsilon that the share suggests. ``steps`` counts spare rounds too.

    Raises:
        Refusal: ``epsilon-unreachable`` when no noise below 1e6 is enough.
    """
    if not 0 < share <= 1:
        raise UsageError("share-impossible", f"expected a share in (0, 1], found {share}.")
    # One unit a step is kept back: a ledger rounds each round up on its own.
    allowed = int(privacy_filter.capacity_units * share) - steps
    template = Mechanism(1.0, sampling_rate, steps)
    return _smallest_noise(
        lambda sigma: (
            spend_cost(replace(template, noise_multiplier=sigma), privacy_filter) <= allowed
        )
    )


def _known(spend: Spend) -> Mechanism:
    if isinstance(spend, Mechanism):
        return spend
    raise Refusal(
        "mechanism-unaccounted",
        f"no epsilon describes {type(spend).__name__}.",
        "Use the dp-sgd mechanism, or let the dataset's policy allow unaccounted work.",
    )


def _smallest_noise(is_enough: Callable[[float], bool]) -> float:
    high = 1.0
    while not is_enough(high):
        high *= 2
        if high > _MAX_NOISE:
            raise Refusal(
                "epsilon-unreachable",
                f"no noise multiplier up to {_MAX_NOISE:g} reaches the target.",
                "Use fewer steps, a lower sampling rate or a larger epsilon.",
            )
    low = max(high / 2, _MIN_NOISE) if high > 1 else _MIN_NOISE
    while high / low > 1 + _SEARCH_TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


@lru_cache(maxsize=512)
def _pld(merged: tuple[tuple[float, float, int], ...], delta: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    for sigma, _, _ in merged:
        if sigma < _MIN_NOISE:
            raise Refusal(
                "mechanism-unaccounted",
                f"a noise multiplier of {sigma} is below {_MIN_NOISE}, which protects nobody.",
                "Raise the noise multiplier.",
            )
    if _is_beyond(merged, delta):
        raise Refusal(
            "mechanism-unaccounted",
            f"epsilon is beyond {_MAX_EPSILON:g}, or the steps are over {_MAX_STEPS}.",
            "Use fewer steps, a lower sampling rate or more noise.",
        )
    accountant = PLDAccountant(value_discretization_interval=1e-4)
    for sigma, rate, steps in merged:
        event = PoissonSampledDpEvent(rate, GaussianDpEvent(sigma / _GRID_ALLOWANCE))
        accountant.compose(event, steps)
    return float(accountant.get_epsilon(delta))


def _is_beyond(merged: Iterable[tuple[float, float, int]], delta: float) -> bool:
    """Return whether PLD would need more memory than any answer is worth, by cheap RDP."""
    parts = list(merged)
    if sum(steps for _, _, steps in parts) > _MAX_STEPS:
        return True
    totals = [
        (order, sum(_rdp_step(sigma, rate, order) * steps for sigma, rate, steps in parts))
        for order in _COARSE_ORDERS
    ]
    return min(rdp - math.log(delta) / (order - 1) for order, rdp in totals) > _MAX_EPSILON


def _rdp_step(sigma: float, rate: float, order: float) -> float:
    """Return the divergence of one step, also where dp-accounting's fractional series fails.

    The series for a fractional order may not converge (it then says infinity) or lose digits. The
    logarithm of the moment, (order - 1) times the divergence, is convex in the order, so that the
    chord between the whole orders around it is a bound too (Mironov 2017, arXiv 1702.07476); so
    is the divergence without sampling.
    """
    low, high = math.floor(order), math.ceil(order)
    if low == high:
        return _rdp_series(sigma, rate, order)
    below = (low - 1) * _rdp_series(sigma, rate, float(low)) if low > 1 else 0.0
    above = (high - 1) * _rdp_series(sigma, rate, float(high))
    chord = ((high - order) * below + (order - low) * above) / (order - 1)
    return min(_rdp_series(sigma, rate, order), chord, _rdp_series(sigma, 1.0, order))


@lru_cache(maxsize=4096)
def _rdp_series(sigma: float, rate: float, order: float) -> float:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders=[order])
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma / _GRID_ALLOWANCE)), 1)
    return float(accountant.rdp[0])
