"""The privacy filter of a cohort: one Rényi order, fixed at registration.

A filter lets later work depend on earlier outputs: at any time the Rényi divergences at the fixed
order of all work, added up, stay below the capacity, and (epsilon, delta) holds for all of it
together. Sources: Feldman and Zrnic 2020 (arXiv 2008.11193); conversion of Canonne, Kamath and
Steinke 2020 (arXiv 2004.00010, proposition 12).

The ledger counts in whole units of 1e-12, costs rounded up and the capacity rounded down, so that
sums are exact whatever their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from larrey_protocol.errors import UsageError

__all__ = ["UNITS", "PrivacyFilter", "choose_order", "make_filter"]

UNITS = 10**12
_ORDERS = (
    tuple(1 + step / 20 for step in range(1, 181))
    + tuple(float(order) for order in range(11, 65))
    + (72.0, 80.0, 96.0, 112.0, 128.0, 160.0, 192.0, 256.0, 384.0, 512.0)
)


@dataclass(frozen=True, slots=True)
class PrivacyFilter:
    """(epsilon, delta) of a cohort family for all work ever, at one Rényi order.

    Unit patient at one site, add/remove.

    Raises:
        UsageError: ``filter-impossible`` when the values leave nothing to spend.
    """

    epsilon: float
    delta: float
    order: float

    def __post_init__(self) -> None:
        is_valid = (
            math.isfinite(self.epsilon)
            and self.epsilon > 0
            and 0 < self.delta < 1
            and math.isfinite(self.order)
            and self.order > 1
        )
        if not is_valid or self.capacity_units < 1:
            raise UsageError(
                "filter-impossible",
                f"a budget of epsilon {self.epsilon} at delta {self.delta} and order"
                f" {self.order} leaves nothing to spend.",
                "Raise epsilon or delta, or let the order be chosen.",
            )

    @property
    def capacity(self) -> float:
        """Return the largest sum of Rényi divergences at the order."""
        return self.epsilon - _conversion(self.delta, self.order)

    @property
    def capacity_units(self) -> int:
        """Return the capacity in whole units, rounded down."""
        return math.floor(Fraction(self.capacity) * UNITS)

    def units(self, rdp: float) -> int:
        """Return a divergence in whole units, rounded up."""
        return math.ceil(Fraction(rdp) * UNITS)

    def share(self, rdp: float) -> float:
        """Return the part of the capacity that a divergence takes; 1.0 is all of it."""
        return rdp / self.capacity

    def share_of_units(self, units: int) -> float:
        """Return the part of the capacity that a count of units takes."""
        return units / self.capacity_units

    def epsilon_of(self, rdp: float) -> float:
        """Return the epsilon at the filter's delta of a total divergence at its order.

        This is the guarantee across studies and after adaptive choices; 0 when nothing was spent.
        """
        return max(0.0, rdp + _conversion(self.delta, self.order)) if rdp > 0 else 0.0

    def epsilon_of_units(self, units: int) -> float:
        """Return the epsilon of a total in whole units."""
        return self.epsilon_of(units / UNITS)


def choose_order(epsilon: float, delta: float) -> float:
    """Return the order that lets most Gaussian work through a planned (epsilon, delta).

    The divergence of a Gaussian mechanism grows linearly with the order, so the best order has
    the largest capacity per order. Meant for a budget that will be used in full.

    Raises:
        UsageError: ``filter-impossible`` when no order leaves anything to spend.
    """
    if not (math.isfinite(epsilon) and epsilon > 0 and 0 < delta < 1):
        raise UsageError(
            "filter-impossible",
            f"expected epsilon > 0 and 0 < delta < 1, found {epsilon} and {delta}.",
            "Correct the dataset's budget.",
        )
    return max(_ORDERS, key=lambda order: (epsilon - _conversion(delta, order)) / order)


def make_filter(epsilon: float, delta: float) -> PrivacyFilter:
    """Return the filter of a budget at the order chosen for it."""
    return PrivacyFilter(epsilon, delta, choose_order(epsilon, delta))


def _conversion(delta: float, order: float) -> float:
    """Return epsilon minus the divergence: the price of going from order to (epsilon, delta)."""
    return math.log((order - 1) / order) - (math.log(delta) + math.log(order)) / (order - 1)
