"""What FLamby's differential privacy on heart really cost: epsilon of the steps that were run.

FLamby asks Opacus for noise for ``epochs = 15`` (its number of rounds) while each site runs 1,500
steps, and draws its batches by shuffling, past the Poisson loader for which the noise was
calibrated (owkin/FLamby at edacf54d, flamby/strategies/utils.py, ``_Model``). Unit: one patient at
one site, neighbours by adding or removing that patient, PLD (`larrey_privacy.accounting`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from larrey_lab.flamby.data import Site
from larrey_lab.flamby.protocol import LOCAL_STEPS
from larrey_lab.flamby.tasks import Binary
from larrey_privacy.accounting import epsilon_pld, noise_for
from larrey_privacy.mechanism import Mechanism

__all__ = ["Spent", "spent"]


@dataclass(frozen=True, slots=True)
class Spent:
    """One site's privacy under the published setting.

    Attributes:
        noise: sigma that reaches the claim over the steps of 15 epochs, by Larrey's accountant;
            Opacus 1.6.0 asks for 1 to 1.5 % more, which changes epsilon by as little.
        steps_calibrated: of 15 epochs.
        steps_run: of 15 rounds.
        epsilon: of the steps that were run, had batches been Poisson samples.
        epsilon_shuffled: what can be shown without that: no amplification, one step an epoch for
            each patient; neighbours differ by blanking a patient out, batches staying as they are.
    """

    site: str
    noise: float
    steps_calibrated: int
    steps_run: int
    epsilon: float
    epsilon_shuffled: float


def spent(sites: Sequence[Site], *, claimed: float, delta: float) -> tuple[Spent, ...]:
    """Return what each site spent where ``claimed`` was published at ``delta``."""
    task, found = Binary(), []
    run = task.rounds * LOCAL_STEPS
    for site in sites:
        batches = math.ceil(len(site.train) / task.batch)  # an epoch's, and 1 / q to Opacus
        calibrated = task.rounds * batches
        noise = noise_for(claimed, delta, sampling_rate=1 / batches, steps=calibrated)
        poisson = epsilon_pld(Mechanism(noise, 1 / batches, run), delta)
        shuffled = epsilon_pld(Mechanism(noise, 1.0, math.ceil(run / batches)), delta)
        found.append(Spent(site.name, noise, calibrated, run, poisson, shuffled))
    return tuple(found)
