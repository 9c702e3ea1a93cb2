"""What was done to the data, as a frozen value.

The accountant and the ledger consume these values; what they do not know they refuse. A value says
nothing about a model, a study or a person. Unit: one patient at one site; neighbours differ by
adding or removing that patient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from larrey_protocol.errors import UsageError

__all__ = ["UNBOUNDED", "Mechanism", "Spend", "Unbounded", "spend_from_record", "spend_record"]

_KIND_GAUSSIAN = "poisson-gaussian"
_KIND_UNBOUNDED = "unbounded"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """Gaussian mechanism on a Poisson sample of patients, composed ``steps`` times.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm (sigma), > 0.
        sampling_rate: probability that a patient joins a step (q), in (0, 1].
        steps: number of noised steps (T), at least 1.
        dimension: upper bound of the released coordinates in a step. The generator's tails end
            near 8.6 sigma; dimension × steps × 1e-17 is charged to delta for what lies beyond.
            The default covers models of up to a million parameters.

    Raises:
        UsageError: ``mechanism-impossible`` when a value lies outside its range.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    dimension: int = 1_000_000

    def __post_init__(self) -> None:
        is_possible = (
            math.isfinite(self.noise_multiplier)
            and self.noise_multiplier > 0
            and 0 < self.sampling_rate <= 1
            and self.steps >= 1
            and self.dimension >= 1
        )
        if not is_possible:
            raise UsageError(
                "mechanism-impossible",
                "expected sigma > 0, 0 < q <= 1 and at least one step, found"
                f" sigma={self.noise_multiplier}, q={self.sampling_rate}, steps={self.steps}.",
                "Correct the [privacy] section of the study.",
            )

    def over(self, rounds: int) -> Mechanism:
        """Return this round's mechanism composed over that many rounds."""
        return replace(self, steps=self.steps * rounds)

    def per_round(self, rounds: int) -> Mechanism:
        """Return the mechanism of one round out of ``rounds`` equal ones.

        Raises:
            UsageError: ``steps-not-whole`` when the steps do not divide by the rounds.
        """
        if rounds < 1 or self.steps % rounds:
            raise UsageError(
                "steps-not-whole",
                f"{self.steps} steps cannot be split into {rounds} equal rounds.",
                "Plan every round with the same number of steps.",
            )
        return replace(self, steps=self.steps // rounds)


@dataclass(frozen=True, slots=True)
class Unbounded:
    """Work without differential privacy: no epsilon describes it."""


UNBOUNDED = Unbounded()
Spend = Mechanism | Unbounded


def spend_record(spend: Spend) -> dict[str, Any]:  # Any: JSON values are recursive
    """Return the JSON form that the ledger stores."""
    if isinstance(spend, Unbounded):
        return {"kind": _KIND_UNBOUNDED}
    return {
        "kind": _KIND_GAUSSIAN,
        "noise_multiplier": float(spend.noise_multiplier),
        "sampling_rate": float(spend.sampling_rate),
        "steps": int(spend.steps),
        "dimension": int(spend.dimension),
    }


def spend_from_record(record: dict[str, Any]) -> Spend:  # Any: JSON values are recursive
    """Return the value that ``spend_record`` stored.

    Raises:
        UsageError: ``mechanism-unknown`` for anything else.
    """
    fields = dict(record)
    kind = fields.pop("kind", None)
    if kind == _KIND_UNBOUNDED and not fields:
        return UNBOUNDED
    if kind != _KIND_GAUSSIAN:
        raise UsageError("mechanism-unknown", f"no accountant knows the mechanism {kind!r}.")
    return Mechanism(**fields)
